//! Slugs: the names of objects in paths, made from their names where nobody chose one.

use aws_lc_rs::rand;

use super::fields::{Fields, Length};

/// Longest slug, in characters.
pub const MAX: usize = 255;
/// Of a slug that is made from a name: what is left for digits that make it unique.
const MAX_MADE: usize = 48;
/// Digits that make a slug unique, as Portkey has them: `pc-fallback-1a2b3c`.
const UNIQUE_DIGITS: usize = 6;

/// Whether `text` is a slug: `^[a-zA-Z0-9_-]+$`, at most [`MAX`].
pub fn is_slug(text: &str) -> bool {
    (1..=MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// The slug that was chosen under `key`, if one was.
pub fn chosen(fields: &mut Fields<'_>, key: &'static str) -> Option<String> {
    let chosen = fields.text(key, Length(0, MAX)).value().filter(|slug| !slug.is_empty())?;
    if !is_slug(&chosen) {
        fields.fault(key, "must be letters, digits, `_` and `-`");
    }
    Some(chosen)
}

/// `prefix`, what of `name` fits into a slug, and six random digits.
pub fn make(prefix: &str, name: &str) -> String {
    let mut slug = prefix.to_owned();
    let words = name.split(|char: char| !char.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    for word in words {
        if slug.len() + word.len() > MAX_MADE {
            break;
        }
        slug.push_str(&word.to_ascii_lowercase());
        slug.push('-');
    }
    slug.push_str(&random_digits());
    slug
}

fn random_digits() -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut bytes = [0; UNIQUE_DIGITS];
    // Without randomness the slug is taken, and the call says so.
    let _ = rand::fill(&mut bytes);
    bytes.iter().map(|byte| char::from(DIGITS[usize::from(byte & 0xf)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_slug_is_one() {
        for name in ["My AWS secret!", "", "ключ", "a_b-c", &"long name ".repeat(40)] {
            let (one, other) = (make("", name), make("ws-", name));
            assert!(is_slug(&one) && is_slug(&other) && other.starts_with("ws-"), "{name}: {one} {other}");
            assert_ne!(one, make("", name));
        }
        assert!(make("", "My AWS secret!").starts_with("my-aws-secret-"));
    }
}
