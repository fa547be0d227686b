//! The age v1 file format, as far as sealed values need it: X25519 stanzas, one chunk of payload.
//!
//! Written from C2SP `age.md`. Labels, key derivations and the order of everything are the format's; nothing here is chosen.

use aws_lc_rs::{
    aead::{self, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    agreement::{self, PrivateKey, UnparsedPublicKey, X25519},
    error::Unspecified,
    hkdf::{HKDF_SHA256, Salt},
    hmac, rand,
};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use zeroize::Zeroizing;

const VERSION_LINE: &str = "age-encryption.org/v1\n";
const X25519_LABEL: &[u8] = b"age-encryption.org/v1/X25519";
const MAC_LABEL: &[u8] = b"header";
const PAYLOAD_LABEL: &[u8] = b"payload";
/// The payload's nonce: a counter of eleven bytes, and 1 for the last chunk. There is one chunk.
const ONLY_CHUNK: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// The format's chunk, in bytes of plaintext.
const CHUNK_BYTES: usize = 64 * 1024;
const FILE_KEY_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const NONCE_BYTES: usize = 16;
/// Stanzas looked at before a file is taken for hostile: a data plane, its successor, an escrow, and room.
const MAX_STANZAS: usize = 32;

/// A point on the curve: a recipient, or an ephemeral share.
pub(super) type Point = [u8; 32];
/// The key of one file.
type FileKey = Zeroizing<[u8; FILE_KEY_BYTES]>;

/// Why a file cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unopened {
    /// It is no age file, or none that this code writes.
    Malformed,
    /// None of its stanzas is for the identity.
    NotForUs,
    /// It was changed after it was written.
    Tampered,
}

/// Encrypts `plaintext` to every one of `recipients`.
///
/// # Errors
/// A recipient is a point of low order, or the system gives no randomness.
pub(super) fn encrypt(plaintext: &[u8], recipients: &[Point]) -> Result<Vec<u8>, Unspecified> {
    if plaintext.len() > CHUNK_BYTES || recipients.is_empty() {
        return Err(Unspecified);
    }
    let mut file_key: FileKey = Zeroizing::new([0; FILE_KEY_BYTES]);
    rand::fill(&mut *file_key)?;
    let mut header = VERSION_LINE.to_owned();
    for recipient in recipients {
        let (share, body) = wrap(&file_key, recipient)?;
        let (share, body) = (STANDARD_NO_PAD.encode(share), STANDARD_NO_PAD.encode(body));
        header.push_str(&format!("-> X25519 {share}\n{body}\n"));
    }
    header.push_str("---");
    let mac = hmac::sign(&mac_key(&file_key)?, header.as_bytes());
    header.push_str(&format!(" {}\n", STANDARD_NO_PAD.encode(mac)));

    let mut nonce = [0; NONCE_BYTES];
    rand::fill(&mut nonce)?;
    let key = chacha(&*derive(&nonce, &*file_key, PAYLOAD_LABEL)?)?;
    let mut file = header.into_bytes();
    file.reserve_exact(NONCE_BYTES + plaintext.len() + TAG_BYTES);
    file.extend_from_slice(&nonce);
    let start = file.len();
    file.extend_from_slice(plaintext);
    let nonce = Nonce::assume_unique_for_key(ONLY_CHUNK);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut file[start..])?;
    file.extend_from_slice(tag.as_ref());
    Ok(file)
}

/// Whether `file` has the form of an age file; costs no cryptography.
pub(super) fn is_file(file: &[u8]) -> bool {
    split(file).is_some()
}

/// Decrypts `file` with `private`, whose public part is `public`.
pub(super) fn decrypt(file: &[u8], private: &PrivateKey, public: &Point) -> Result<Zeroizing<Vec<u8>>, Unopened> {
    let (stanzas, authenticated, mac, payload) = split(file).ok_or(Unopened::Malformed)?;
    let file_key =
        stanzas.iter().find_map(|(share, body)| unwrap(share, body, private, public).ok()).ok_or(Unopened::NotForUs)?;
    let mac_key = mac_key(&file_key).map_err(|_| Unopened::Tampered)?;
    hmac::verify(&mac_key, authenticated, &mac).map_err(|_| Unopened::Tampered)?;
    if payload.len() < NONCE_BYTES + TAG_BYTES || payload.len() > NONCE_BYTES + CHUNK_BYTES + TAG_BYTES {
        return Err(Unopened::Malformed);
    }
    let (nonce, chunk) = payload.split_at(NONCE_BYTES);
    let open = || {
        let key = chacha(&*derive(nonce, &*file_key, PAYLOAD_LABEL)?)?;
        let mut buffer = Zeroizing::new(chunk.to_vec());
        let length = key.open_in_place(Nonce::assume_unique_for_key(ONLY_CHUNK), Aad::empty(), &mut buffer)?.len();
        // What is behind is the tag; the buffer keeps its size, so that nothing is copied.
        buffer.truncate(length);
        Ok::<_, Unspecified>(buffer)
    };
    open().map_err(|_| Unopened::Tampered)
}

/// The stanzas for X25519, what the MAC covers, the MAC, and the payload.
#[expect(clippy::type_complexity, reason = "four parts of one text, named where they are taken apart")]
fn split(file: &[u8]) -> Option<(Vec<(Point, Vec<u8>)>, &[u8], Vec<u8>, &[u8])> {
    let mut at = VERSION_LINE.len();
    let mut stanzas = Vec::new();
    file.starts_with(VERSION_LINE.as_bytes()).then_some(())?;
    for _ in 0..=MAX_STANZAS {
        let line = line(file, &mut at)?;
        if let Some(mac) = line.strip_prefix("--- ") {
            let authenticated = &file[..at - mac.len() - " \n".len()];
            return Some((stanzas, authenticated, STANDARD_NO_PAD.decode(mac).ok()?, &file[at..]));
        }
        let arguments = line.strip_prefix("-> ")?;
        let mut body = String::new();
        loop {
            let line = self::line(file, &mut at)?;
            body.push_str(line);
            // A full line is 64 characters; a body ends with one that is shorter, be it empty.
            if line.len() < 64 {
                break;
            }
        }
        if let Some(share) = arguments.strip_prefix("X25519 ") {
            let share = STANDARD_NO_PAD.decode(share).ok()?.try_into().ok()?;
            stanzas.push((share, STANDARD_NO_PAD.decode(body).ok()?));
        }
    }
    None
}

/// The line at `at`, which moves behind it.
fn line<'f>(file: &'f [u8], at: &mut usize) -> Option<&'f str> {
    let rest = &file[*at..];
    let end = memchr::memchr(b'\n', rest)?;
    *at += end + 1;
    std::str::from_utf8(&rest[..end]).ok()
}

/// The file key for one recipient: an ephemeral share, and the key encrypted under what both sides can compute.
fn wrap(file_key: &FileKey, recipient: &Point) -> Result<(Point, Vec<u8>), Unspecified> {
    let ephemeral = PrivateKey::generate(&X25519)?;
    let share: Point = ephemeral.compute_public_key()?.as_ref().try_into().map_err(|_| Unspecified)?;
    let key = shared(&ephemeral, recipient, &share, recipient)?;
    let mut body = file_key.to_vec();
    let tag = chacha(&*key)?.seal_in_place_separate_tag(zero_nonce(), Aad::empty(), &mut body)?;
    body.extend_from_slice(tag.as_ref());
    Ok((share, body))
}

fn unwrap(share: &Point, body: &[u8], private: &PrivateKey, public: &Point) -> Result<FileKey, Unspecified> {
    // Checked before decryption: a longer body could be made to open under two keys.
    if body.len() != FILE_KEY_BYTES + TAG_BYTES {
        return Err(Unspecified);
    }
    let key = shared(private, share, share, public)?;
    let mut buffer = Zeroizing::new(body.to_vec());
    let opened = chacha(&*key)?.open_in_place(zero_nonce(), Aad::empty(), &mut buffer)?;
    let mut file_key: FileKey = Zeroizing::new([0; FILE_KEY_BYTES]);
    file_key.copy_from_slice(opened);
    Ok(file_key)
}

/// The wrapping key between `mine` and `theirs`. A point of low order is refused by the library.
fn shared(mine: &PrivateKey, theirs: &Point, share: &Point, recipient: &Point) -> Result<DerivedKey, Unspecified> {
    let salt = [*share, *recipient].concat();
    agreement::agree(mine, UnparsedPublicKey::new(&X25519, theirs), Unspecified, |secret| {
        derive(&salt, secret, X25519_LABEL)
    })
}

/// A key that was derived, wiped on drop.
type DerivedKey = Zeroizing<[u8; 32]>;

fn derive(salt: &[u8], secret: &[u8], label: &[u8]) -> Result<DerivedKey, Unspecified> {
    let mut key = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, salt).extract(secret).expand(&[label], HKDF_SHA256)?.fill(&mut *key)?;
    Ok(key)
}

fn mac_key(file_key: &FileKey) -> Result<hmac::Key, Unspecified> {
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &*derive(&[], &**file_key, MAC_LABEL)?))
}

fn chacha(key: &[u8]) -> Result<LessSafeKey, Unspecified> {
    UnboundKey::new(&CHACHA20_POLY1305, key).map(LessSafeKey::new)
}

/// Each wrapping key is used once.
fn zero_nonce() -> aead::Nonce {
    Nonce::assume_unique_for_key([0; 12])
}
