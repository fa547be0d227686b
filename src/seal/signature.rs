//! The signature of the feed: Ed25519 (RFC 8032), keys as PEM (RFC 8410), so that other tools can check it, too.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject};
use zeroize::Zeroizing;

/// What stands before the 32 bytes of an Ed25519 public key in its `SubjectPublicKeyInfo` (RFC 8410, section 4).
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The private key of a control plane.
pub struct SigningKey(Ed25519KeyPair);

/// The public key that a sidecar checks its feed with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey([u8; 32]);

/// A text that holds no such key. Quotes nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAKey {
    /// Not a private key.
    #[error("holds no Ed25519 private key in PEM; make one with sidekey keygen --kind signing")]
    Private,
    /// Not a public key.
    #[error("holds no Ed25519 public key in PEM; give what sidekey keygen --kind signing printed")]
    Public,
}

// === impl SigningKey ===

impl SigningKey {
    /// A new one.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<Self, aws_lc_rs::error::Unspecified> {
        Ed25519KeyPair::generate().map(Self)
    }

    /// Reads PKCS #8 in PEM.
    ///
    /// # Errors
    /// [`NotAKey::Private`].
    pub fn parse(pem: &str) -> Result<Self, NotAKey> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| NotAKey::Private)?;
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map(Self).map_err(|_| NotAKey::Private)
    }

    /// PKCS #8 in PEM, as it stands in a file. Whoever calls this is responsible for where it goes.
    pub fn expose(&self) -> Option<Zeroizing<String>> {
        let der = self.0.to_pkcs8v1().ok()?;
        let body = Zeroizing::new(STANDARD.encode(der.as_ref()));
        Some(Zeroizing::new(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", *body)))
    }

    /// Its public part.
    pub fn verifying(&self) -> VerifyingKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        VerifyingKey(key)
    }

    /// Signs `message`: 64 bytes.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(<redacted>)")
    }
}

// === impl VerifyingKey ===

impl VerifyingKey {
    /// Reads a `SubjectPublicKeyInfo` in PEM.
    ///
    /// # Errors
    /// [`NotAKey::Public`].
    pub fn parse(pem: &str) -> Result<Self, NotAKey> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| NotAKey::Public)?;
        let key = der.strip_prefix(&PUBLIC_PREFIX).ok_or(NotAKey::Public)?;
        key.try_into().map(Self).map_err(|_| NotAKey::Public)
    }

    /// Reads a file of them: one PEM after the other, each in lines or in the one line of a log; or the base64 of one without
    /// anything around, as some tools keep it.
    ///
    /// # Errors
    /// [`NotAKey::Public`].
    pub fn parse_all(text: &str) -> Result<Vec<Self>, NotAKey> {
        const BEGIN: &str = "-----BEGIN ";
        if !text.contains(BEGIN) {
            return Self::parse(&format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", text.trim()))
                .map(|key| vec![key]);
        }
        let in_lines =
            |rest: &str| format!("{BEGIN}{rest}").replace("KEY----- ", "KEY-----\n").replace(" -----END", "\n-----END");
        text.split(BEGIN).skip(1).map(|rest| Self::parse(&in_lines(rest))).collect()
    }

    /// `SubjectPublicKeyInfo` in PEM.
    pub fn to_pem(self) -> String {
        let body = STANDARD.encode([&PUBLIC_PREFIX[..], &self.0].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    }

    /// Whether `signature` is this key's for `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", STANDARD.encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file_and_signs() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::parse(&key.expose().unwrap()).unwrap();
        let public = VerifyingKey::parse(&key.verifying().to_pem()).unwrap();
        let signature = again.sign(b"snapshot");
        assert!(public.verifies(b"snapshot", &signature));
        assert!(!public.verifies(b"snapshoT", &signature));
        assert!(!SigningKey::generate().unwrap().verifying().verifies(b"snapshot", &signature));
    }

    #[test]
    fn what_openssl_wrote_is_read() {
        // openssl genpkey -algorithm ed25519; openssl pkey -pubout
        let private = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\n\
            MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
        let key = SigningKey::parse(private).unwrap();
        assert_eq!(key.verifying(), VerifyingKey::parse(public).unwrap());
        assert_eq!(key.verifying().to_pem(), public);
    }

    #[test]
    fn a_file_holds_several_keys_or_one_without_its_lines() {
        let keys = [0; 2].map(|_| SigningKey::generate().unwrap().verifying());
        let both = keys.map(VerifyingKey::to_pem).join("# the next one\n");
        assert_eq!(VerifyingKey::parse_all(&both).unwrap(), keys);
        let bare = keys[0].to_pem().lines().nth(1).unwrap().to_owned();
        assert_eq!(VerifyingKey::parse_all(&format!("{bare}\n")).unwrap(), keys[..1]);
        let logged = both.replace('\n', " ");
        assert_eq!(VerifyingKey::parse_all(logged.trim()).unwrap(), keys);
        for text in ["", "x", &both[..both.len() - 40]] {
            assert!(VerifyingKey::parse_all(text).is_err(), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_keys() {
        let pem = SigningKey::generate().unwrap().verifying().to_pem();
        for text in ["", "age1", &pem[..60], "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            assert_eq!(VerifyingKey::parse(text), Err(NotAKey::Public), "{text}");
            assert_eq!(SigningKey::parse(text).err(), Some(NotAKey::Private), "{text}");
        }
    }
}
