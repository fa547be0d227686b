//! Signature Version 4 as the receiving service computes it, to tell whether a request was signed with a given key.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::Received;

/// Whether `request` carries a valid signature by this pair of keys. The path must need no escaping.
pub fn is_signed_by(request: &Received, access_key_id: &str, secret_access_key: &str) -> bool {
    let authorization = request.header("authorization");
    let part = |name: &str| {
        let (_, rest) = authorization.split_once(&format!("{name}="))?;
        Some(rest.split(',').next().unwrap_or(rest).trim())
    };
    let (Some(credential), Some(signed), Some(signature)) =
        (part("Credential"), part("SignedHeaders"), part("Signature"))
    else {
        return false;
    };
    let Some((id, scope)) = credential.split_once('/') else { return false };
    let [day, region, service, "aws4_request"] = scope.split('/').collect::<Vec<_>>()[..] else { return false };

    let headers: String = signed.split(';').map(|name| format!("{name}:{}\n", request.header(name).trim())).collect();
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let canonical =
        format!("{}\n{path}\n{query}\n{headers}\n{signed}\n{}", request.method, hex(&Sha256::digest(&request.body)));
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
        request.header("x-amz-date"),
        hex(&Sha256::digest(canonical.as_bytes()))
    );
    let mut key = format!("AWS4{secret_access_key}").into_bytes();
    for part in [day, region, service, "aws4_request"] {
        key = sign(&key, part);
    }
    id == access_key_id && hex(&sign(&key, &to_sign)) == signature
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
