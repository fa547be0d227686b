//! Who is to blame for a reply.

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::dialect::portkey::{
    Blame, BodyPeek, Portkey, Settings,
    sample::{self, chat, plan},
};

/// The references behind the blamed mappings: refused, skipped.
fn blamed(headers: &[(&str, &str)], status: u16, used: Option<&str>) -> (Vec<String>, Vec<String>) {
    let plan = plan(&sample::providers().link(), &chat(headers), &BodyPeek::default()).unwrap();
    let mut reply = HeaderMap::new();
    if let Some(used) = used {
        reply.insert("x-portkey-last-used-option-index", used.parse().unwrap());
    }
    let status = StatusCode::from_u16(status).unwrap();
    let Blame { refused, skipped } = Portkey::new(Settings::default()).blame(&plan, status, &reply);
    let names = |indices: Vec<usize>| {
        let name = |index: usize| {
            let mapping = &plan.mappings[index];
            format!("{}.{}", mapping.reference.slug, mapping.target.spec.name)
        };
        indices.into_iter().map(name).collect()
    };
    (names(refused), names(skipped))
}

#[test]
fn header_mode_has_one_target() {
    let bedrock = ["aws.aws_access_key_id", "aws.aws_secret_access_key", "aws.aws_session_token"];
    for (provider, status, refused) in [
        ("@openai-prod", 401, &["openai-key.api_key"][..]),
        ("@openai-prod", 403, &["openai-key.api_key"]),
        ("@openai-prod", 200, &[]),
        ("@openai-prod", 404, &[]),
        ("@openai-prod", 407, &[]),
        ("@bedrock", 403, &bedrock),
        ("openai", 401, &[]),
    ] {
        for used in [None, Some("config"), Some("nonsense")] {
            let blamed = blamed(&[("x-portkey-provider", provider)], status, used);
            assert_eq!(
                blamed,
                (refused.iter().map(|name| (*name).to_owned()).collect(), vec![]),
                "{provider} {status}"
            );
        }
    }
}

#[test]
fn a_config_is_walked_as_the_gateway_walked_it() {
    let leaf = |slug: &str| json!({ "provider": format!("@{slug}") });
    let router = |mode: &str, targets: Vec<Value>| json!({ "strategy": { "mode": mode }, "targets": targets });
    let (openai, anthropic, google) = ("openai-key.api_key", "anthropic-key.api_key", "google-key.api_key");
    let own = json!({ "provider": "openai", "api_key": "sk-own" });
    let fallback = router("fallback", vec![leaf("openai-prod"), leaf("anthropic"), leaf("google")]);
    let balanced = router("loadbalance", vec![leaf("openai-prod"), leaf("anthropic"), own.clone()]);
    let nested =
        router("fallback", vec![balanced.clone(), router("fallback", vec![own, leaf("google"), leaf("anthropic")])]);
    let twice = router("fallback", vec![leaf("openai-prod"), leaf("openai-prod")]);
    let on = |name: &str, codes: Value, targets: Vec<Value>| json!({ "strategy": { "mode": "fallback", name: codes }, "targets": targets });
    let two = || vec![leaf("openai-prod"), leaf("anthropic")];
    let throttled = on("on_status_codes", json!([429, 500]), two());
    let throttled_camel = on("onStatusCodes", json!([429]), two());
    let denied = on("on_status_codes", json!([429, 403]), two());
    let no_list = on("on_status_codes", json!("429"), two());
    let within = on("on_status_codes", json!([429]), vec![router("fallback", two()), leaf("google")]);

    struct Case<'c> {
        config: &'c Value,
        status: u16,
        used: Option<&'c str>,
        refused: &'c [&'c str],
        skipped: &'c [&'c str],
    }
    #[rustfmt::skip]
    let cases = [
        Case { config: &leaf("openai-prod"), status: 401, used: Some("config"), refused: &[openai], skipped: &[] },
        Case { config: &fallback, status: 200, used: Some("config.targets[0]"), refused: &[], skipped: &[] },
        Case { config: &fallback, status: 200, used: Some("config.targets[1]"), refused: &[], skipped: &[openai] },
        Case { config: &fallback, status: 500, used: Some("config.targets[2]"), refused: &[], skipped: &[openai, anthropic] },
        Case { config: &fallback, status: 401, used: Some("config.targets[1]"), refused: &[anthropic], skipped: &[openai] },
        // Nobody knows how far it came: all of them if it was refused, none otherwise.
        Case { config: &fallback, status: 401, used: None, refused: &[openai, anthropic, google], skipped: &[] },
        Case { config: &fallback, status: 401, used: Some("config.targets[3]"), refused: &[openai, anthropic, google], skipped: &[] },
        Case { config: &fallback, status: 401, used: Some("config.targets[1].targets[0]"), refused: &[openai, anthropic, google], skipped: &[] },
        Case { config: &fallback, status: 200, used: None, refused: &[], skipped: &[] },
        Case { config: &fallback, status: 200, used: Some("config.targets[x]"), refused: &[], skipped: &[] },
        Case { config: &fallback, status: 200, used: Some("config.targets[99999999999999999999]"), refused: &[], skipped: &[] },
        // A balancer tries one.
        Case { config: &balanced, status: 403, used: Some("config.targets[1]"), refused: &[anthropic], skipped: &[] },
        Case { config: &balanced, status: 200, used: Some("config.targets[1]"), refused: &[], skipped: &[] },
        // The client's own target is the client's.
        Case { config: &balanced, status: 401, used: Some("config.targets[2]"), refused: &[], skipped: &[] },
        Case { config: &nested, status: 200, used: Some("config.targets[0].targets[1]"), refused: &[], skipped: &[] },
        Case { config: &nested, status: 200, used: Some("config.targets[1].targets[0]"), refused: &[], skipped: &[openai, anthropic] },
        Case { config: &nested, status: 401, used: Some("config.targets[1].targets[2]"), refused: &[anthropic], skipped: &[openai, google] },
        // A fallback that is content with a refusal has not gone past one.
        Case { config: &throttled, status: 200, used: Some("config.targets[1]"), refused: &[], skipped: &[] },
        Case { config: &throttled, status: 401, used: Some("config.targets[1]"), refused: &[anthropic], skipped: &[] },
        Case { config: &throttled_camel, status: 200, used: Some("config.targets[1]"), refused: &[], skipped: &[] },
        Case { config: &denied, status: 200, used: Some("config.targets[1]"), refused: &[], skipped: &[openai] },
        Case { config: &no_list, status: 200, used: Some("config.targets[1]"), refused: &[], skipped: &[openai] },
        Case { config: &within, status: 200, used: Some("config.targets[1]"), refused: &[], skipped: &[openai, anthropic] },
        // One mapping in two targets is refused once.
        Case { config: &twice, status: 401, used: Some("config.targets[1]"), refused: &[openai], skipped: &[] },
        Case { config: &twice, status: 200, used: Some("config.targets[1]"), refused: &[], skipped: &[openai] },
    ];
    for Case { config, status, used, refused, skipped } in cases {
        let blamed = blamed(&[("x-portkey-config", &config.to_string())], status, used);
        let sorted = |names: &[&str]| {
            let mut names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            names.sort();
            names
        };
        let (mut got, mut past) = blamed;
        got.sort();
        past.sort();
        assert_eq!((got, past), (sorted(refused), sorted(skipped)), "{config} {status} {used:?}");
    }
}
