//! Header values, shortened so that a credential can be recognised and not used.

/// Headers of a request that never hold a credential, and are shown whole.
const PLAIN: [&str; 14] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "connection",
    "content-length",
    "content-type",
    "host",
    "sec-fetch-mode",
    "transfer-encoding",
    "user-agent",
    "x-portkey-custom-host",
    "x-portkey-provider",
    "x-portkey-trace-id",
    "x-request-id",
];
/// Letters shown at either end of a value, together at most a third of it.
const ENDS: usize = 6;

/// The value of the header `name` as it may be shown: a scheme stays, of the rest only the ends.
pub fn shorten(name: &str, value: &str) -> String {
    if PLAIN.contains(&name) {
        return value.to_owned();
    }
    match value.split_once(' ') {
        Some((scheme, rest)) if matches!(scheme, "Bearer" | "Basic") => format!("{scheme} {}", ends(rest)),
        _ => ends(value),
    }
}

fn ends(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let shown = (letters.len() / 6).min(ENDS);
    let (first, last) = (&letters[..shown], &letters[letters.len() - shown..]);
    format!("{}…{}", first.iter().collect::<String>(), last.iter().collect::<String>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn credentials_keep_their_ends_only() {
        for (name, value, shown) in [
            ("authorization", "Bearer sk-dev-0123456789abcdef0123456789abcdef", "Bearer sk-dev…abcdef"),
            ("authorization", "Bearer short", "Bearer …"),
            ("x-api-key", "0123456789ab", "01…ab"),
            ("x-portkey-config", "{\"api_key\":\"sk-1\"}", "{\"a…1\"}"),
            ("x-portkey-provider", "openai", "openai"),
            ("x-unknown", "", "…"),
        ] {
            assert_eq!(shorten(name, value), shown, "{name}");
        }
    }

    proptest! {
        #[test]
        fn at_most_a_third_is_shown(value in ".{0,200}") {
            let shown = shorten("x-api-key", &value).chars().count() - 1;
            prop_assert!(shown * 3 <= value.chars().count());
        }
    }
}
