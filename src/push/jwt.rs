//! JSON Web Tokens (RFC 7519) in the compact form of RFC 7515, as far as issuers of deliveries use them: RS256 and ES256.
//!
//! A token is taken apart first and believed last: until [`Token::signed_by`] says so, its claims are somebody's word. No
//! header but `alg` and `kid` has a say, so that a token cannot bring its own key.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

/// Longest token, in bytes. Entra's have two thousand, Google's half of that.
const MAX_BYTES: usize = 8 << 10;
/// Of a P-256 point that is not compressed (SEC 1, 2.3.3).
const UNCOMPRESSED: u8 = 4;
/// Bytes of a P-256 coordinate.
const COORDINATE: usize = 32;

/// A token, taken apart.
#[derive(Debug)]
pub struct Token<'t> {
    /// Which key signed it, it says.
    pub kid: Option<String>,
    /// What it says.
    pub claims: Claims,
    algorithm: Algorithm,
    signed: &'t str,
    signature: Vec<u8>,
}

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
}

/// The claims that somebody looks at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// Who issued it.
    pub iss: String,
    /// For whom.
    pub aud: Audience,
    /// Until when, in seconds since 1970.
    pub exp: Option<f64>,
    /// From when on.
    pub nbf: Option<f64>,
    /// Google: the service account.
    pub email: Option<String>,
    /// Google: whether it may be believed.
    pub email_verified: bool,
    /// Entra: the tenant.
    pub tid: Option<String>,
    /// Entra, version 1: who got the token.
    pub appid: Option<String>,
    /// Entra, version 2: the same.
    pub azp: Option<String>,
    /// Authorization servers that write no audience: who got the token (Cognito).
    pub client_id: Option<String>,
}

/// One name or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// A public key of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// How the issuer calls it.
    pub kid: Option<String>,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256([u8; 1 + 2 * COORDINATE]),
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; none is.
    crit: Option<serde::de::IgnoredAny>,
}

/// A key of a JSON Web Key Set (RFC 7517).
#[derive(Deserialize)]
pub(super) struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

// === impl Token ===

impl<'t> Token<'t> {
    /// Takes `token` apart; `None` when it is none, or signed in a way that nobody here checks.
    pub fn parse(token: &'t str) -> Option<Self> {
        if token.len() > MAX_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        let algorithm = match header.alg.as_str() {
            "RS256" => Algorithm::Rs256,
            "ES256" => Algorithm::Es256,
            _ => return None,
        };
        if header.crit.is_some() {
            return None;
        }
        let claims = serde_json::from_slice(&decode(claims)?).ok()?;
        Some(Self { kid: header.kid, claims, algorithm, signed, signature: decode(signature)? })
    }

    /// Whether `key` may have signed it: of its kind, and of its name where both have one.
    pub fn fits(&self, key: &PublicKey) -> bool {
        let kind = match key.material {
            Material::Rsa { .. } => Algorithm::Rs256,
            Material::P256(_) => Algorithm::Es256,
        };
        kind == self.algorithm && self.kid.as_ref().zip(key.kid.as_ref()).is_none_or(|(token, key)| token == key)
    }

    /// Whether `key` signed it.
    pub fn signed_by(&self, key: &PublicKey) -> bool {
        let message = self.signed.as_bytes();
        self.fits(key)
            && match &key.material {
                Material::Rsa { n, e } => RsaPublicKeyComponents { n, e }
                    .verify(&RSA_PKCS1_2048_8192_SHA256, message, &self.signature)
                    .is_ok(),
                Material::P256(point) => {
                    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, &self.signature).is_ok()
                }
            }
    }
}

// === impl Audience ===

impl Audience {
    /// Whether `wanted` is among them.
    pub fn names(&self, wanted: &str) -> bool {
        match self {
            Self::One(one) => one == wanted,
            Self::Many(many) => many.iter().any(|one| one == wanted),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Many(many) if many.is_empty())
    }
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

// === impl PublicKey ===

impl PublicKey {
    /// The key in `jwk`; `None` when it is for something else than the two algorithms.
    pub(super) fn from_jwk(jwk: Jwk) -> Option<Self> {
        if jwk.usage.is_some_and(|usage| usage != "sig") {
            return None;
        }
        let material = match jwk.kty.as_str() {
            "RSA" => Material::Rsa { n: decode(&jwk.n?)?, e: decode(&jwk.e?)? },
            "EC" if jwk.crv.as_deref() == Some("P-256") => {
                let mut point = [UNCOMPRESSED; 1 + 2 * COORDINATE];
                let (x, y) = (decode(&jwk.x?)?, decode(&jwk.y?)?);
                if x.len() != COORDINATE || y.len() != COORDINATE {
                    return None;
                }
                point[1..=COORDINATE].copy_from_slice(&x);
                point[1 + COORDINATE..].copy_from_slice(&y);
                Material::P256(point)
            }
            _ => return None,
        };
        Some(Self { kid: jwk.kid, material })
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// RFC 7515, appendices A.2 (RS256) and A.3 (ES256): keys and tokens.
    const CLAIMS: &str =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    const RSA_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    const EC_SIGNATURE: &str = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

    fn key(jwk: Value) -> Option<PublicKey> {
        PublicKey::from_jwk(serde_json::from_value(jwk).unwrap())
    }

    fn rsa() -> Value {
        json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"})
    }

    fn ec() -> Value {
        json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})
    }

    fn with(mut jwk: Value, name: &str, value: &str) -> Value {
        jwk[name] = value.into();
        jwk
    }

    fn token(header: &str, signature: &str) -> String {
        format!("{}.{CLAIMS}.{signature}", URL_SAFE_NO_PAD.encode(header))
    }

    #[test]
    fn the_examples_of_the_standard_are_signed_and_nothing_else_is() {
        let rs = token(r#"{"alg":"RS256"}"#, RSA_SIGNATURE);
        let es = token(r#"{"alg":"ES256"}"#, EC_SIGNATURE);
        let other = CLAIMS.replace("joe", "jim");
        let other = format!("eyJhbGciOiJSUzI1NiJ9.{}.{RSA_SIGNATURE}", &other[..other.len() - 1]);
        #[rustfmt::skip]
        let rows = [
            // token, key, signed
            (rs.clone(), rsa(), true),
            (es.clone(), ec(), true),
            (rs.clone(), ec(), false),
            (es.clone(), rsa(), false),
            (rs.replace("cC4hi", "cC4hj"), rsa(), false),
            (es.replace("DtEhU", "DtEhV"), ec(), false),
            (other, rsa(), false),
            // A name that both have must be the same.
            (rs.clone(), with(rsa(), "kid", "a"), true),
            (token(r#"{"alg":"RS256","kid":"a"}"#, RSA_SIGNATURE), with(rsa(), "kid", "b"), false),
            // Algorithms that are nobody's here, a key that the token brings, and extensions.
            (token(r#"{"alg":"none"}"#, ""), rsa(), false),
            (token(r#"{"alg":"HS256"}"#, RSA_SIGNATURE), rsa(), false),
            (token(r#"{"alg":"ES256","crit":["exp"]}"#, EC_SIGNATURE), ec(), false),
        ];
        for (token, jwk, signed) in rows {
            let key = key(jwk).unwrap();
            assert_eq!(Token::parse(&token).is_some_and(|token| token.signed_by(&key)), signed, "{token:.60}");
        }
    }

    #[test]
    fn only_keys_for_signatures_of_the_two_kinds_are_keys() {
        let rows = [
            (rsa(), true),
            (ec(), true),
            (with(rsa(), "use", "sig"), true),
            (with(rsa(), "use", "enc"), false),
            (with(ec(), "crv", "P-384"), false),
            (with(ec(), "x", "AQAB"), false),
            (with(rsa(), "n", "!"), false),
            (json!({"kty": "oct", "k": "AQAB"}), false),
            (json!({"kty": "RSA", "n": "AQAB"}), false),
        ];
        for (jwk, is_key) in rows {
            assert_eq!(key(jwk.clone()).is_some(), is_key, "{jwk}");
        }
        // Smaller than 2048 bits: never believed.
        let small = key(json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"})).unwrap();
        assert!(!Token::parse(&token(r#"{"alg":"RS256"}"#, RSA_SIGNATURE)).unwrap().signed_by(&small));
    }

    #[test]
    fn what_is_no_token_is_none() {
        let long = format!("{}.{}", token(r#"{"alg":"RS256"}"#, RSA_SIGNATURE), "a".repeat(MAX_BYTES));
        for text in ["", ".", "..", "a.b.c", "e30.e30.", "e30.e30", &token("[]", ""), &token("{}", "x"), &long] {
            assert!(Token::parse(text).is_none(), "{text:.40}");
        }
    }

    #[test]
    fn an_audience_is_one_name_or_several() {
        let claims = |json: &str| serde_json::from_str::<Claims>(json);
        assert!(claims(r#"{"aud": "a"}"#).unwrap().aud.names("a"));
        assert!(claims(r#"{"aud": ["b", "a"]}"#).unwrap().aud.names("a"));
        assert!(!claims(r#"{"aud": ["b", "ab"]}"#).unwrap().aud.names("a"));
        assert!(claims("{}").unwrap().aud.is_empty());
        assert!(claims(r#"{"aud": 7}"#).is_err());
    }
}
