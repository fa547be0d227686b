//! Every way of naming an entity, and what becomes of the names that lost.

use crate::{
    dialect::{
        PlanError,
        portkey::{
            BodyPeek, Mode, Settings,
            sample::{self, Sample, chat, head, model, plan, plan_with},
        },
    },
    model::Caller,
};

fn three() -> Sample {
    ["a", "b", "c"]
        .into_iter()
        .fold(Sample::new().reference("k"), |sample, slug| sample.integration(slug, "openai", Some("ref:k"), "{}"))
}

#[test]
fn every_place_names_and_the_first_wins() {
    let snapshot = three().config("pc-retry", r#"{"retry":{"attempts":2}}"#).link();
    let fallback = r#"{"strategy":{"mode":"single"},"targets":[{"provider":"@c"}]}"#;
    for (headers, uri, body, entity, mode) in [
        (&[("x-portkey-provider", "@a")][..], "/v1/chat/completions", None, "a", Mode::Header),
        (&[("x-portkey-provider", "@a/gpt-4o")], "/v1/chat/completions", None, "a", Mode::Header),
        (&[("x-portkey-virtual-key", "a")], "/v1/chat/completions", None, "a", Mode::Header),
        (&[("x-portkey-virtual-key", "@a")], "/v1/chat/completions", None, "a", Mode::Header),
        (&[], "/v1/chat/completions", Some("@a/gpt-4o"), "a", Mode::Header),
        (&[], "/v1/chat/completions", Some("@a"), "a", Mode::Header),
        (&[], "/v1/realtime?model=@a/gpt-4o", None, "a", Mode::Header),
        (&[], "/v1/realtime?model=%40a%2Fgpt-4o", None, "a", Mode::Header),
        (
            &[("x-portkey-provider", "@a"), ("x-portkey-virtual-key", "b")],
            "/v1/x?model=@c",
            Some("@c/m"),
            "a",
            Mode::Header,
        ),
        (&[("x-portkey-provider", "openai"), ("x-portkey-virtual-key", "b")], "/v1/x", Some("@c/m"), "b", Mode::Header),
        (&[("x-portkey-provider", "openai")], "/v1/x?model=@b/m", Some("@c/m"), "c", Mode::Header),
        (
            &[("x-portkey-config", r#"{"retry":{"attempts":2}}"#), ("x-portkey-provider", "@a")],
            "/v1/x",
            None,
            "a",
            Mode::Header,
        ),
        (&[("x-portkey-config", "pc-retry"), ("x-portkey-virtual-key", "a")], "/v1/x", None, "a", Mode::Header),
        (
            &[("x-portkey-config", r#"{"provider":"@c"}"#), ("x-portkey-provider", "@a")],
            "/v1/x",
            Some("@b/m"),
            "c",
            Mode::Config,
        ),
        (
            &[("x-portkey-config", r#"{"virtual_key":"c"}"#), ("x-portkey-virtual-key", "a")],
            "/v1/x",
            None,
            "c",
            Mode::Config,
        ),
        (&[("x-portkey-config", r#"{"override_params":{"model":"@c/m"}}"#)], "/v1/x", Some("@b/m"), "c", Mode::Config),
        (&[("x-portkey-config", fallback), ("x-portkey-provider", "@a")], "/v1/x", None, "c", Mode::Config),
    ] {
        let method = if uri.contains("realtime") { http::Method::GET } else { http::Method::POST };
        let head = head(method, uri, headers);
        let peek = body.map(model).unwrap_or_default();
        let planned = plan(&snapshot, &head, &peek).unwrap();
        let named: Vec<&str> = planned.entities.iter().map(|entity| &*entity.slug).collect();
        assert_eq!((named, planned.mode), (vec![entity], mode), "{headers:?} {uri} {body:?}");
    }
}

#[test]
fn names_that_lost_are_removed() {
    let snapshot = three().link();
    for (headers, uri, body) in [
        (
            &[("x-portkey-provider", "@a"), ("x-portkey-virtual-key", "nobody")][..],
            "/v1/x?model=@nobody/m&y=1",
            "@nobody/m",
        ),
        (
            &[("x-portkey-config", r#"{"provider":"@a"}"#), ("x-portkey-provider", "@nobody")],
            "/v1/x?model=@nobody/m&y=1",
            "@nobody/m",
        ),
        // Nothing of ours is injected, but the config decides.
        (
            &[
                ("x-portkey-config", r#"{"provider":"openai","api_key":"sk-own"}"#),
                ("x-portkey-provider", "@nobody"),
                ("x-portkey-virtual-key", "nobody"),
            ],
            "/v1/x?model=@nobody/m&y=1",
            "@nobody/m",
        ),
    ] {
        let head = head(http::Method::POST, uri, headers);
        let planned = plan(&snapshot, &head, &model(body)).unwrap();
        let (applied, _) = sample::apply(&planned, &head);
        assert_eq!(applied.uri, "/v1/x?model=m&y=1");
        assert!(!applied.headers.contains_key("x-portkey-virtual-key"));
        assert!(!applied.headers.values().any(|value| value.to_str().unwrap_or_default().contains('@')), "{applied:?}");
        assert_eq!(planned.body_edit.unwrap().replacement, "\"m\"");
    }
}

#[test]
fn unknown_names_are_reported_together() {
    let snapshot = three().link();
    let config = r#"{"strategy":{"mode":"fallback"},"targets":[{"provider":"@x"},{"provider":"@a"},{"virtual_key":"y"},{"provider":"@x"},
        {"override_params":{"model":"@z/m"}}]}"#;
    for (headers, peek, expected) in [
        (&[("x-portkey-config", config)][..], BodyPeek::default(), &["x", "y", "z"][..]),
        (&[("x-portkey-provider", "@x")], BodyPeek::default(), &["x"]),
        (&[("x-portkey-virtual-key", "y")], BodyPeek::default(), &["y"]),
        (&[], model("@z/m"), &["z"]),
        (&[("x-portkey-config", "pc-none")], BodyPeek::default(), &["pc-none"]),
        (&[("x-portkey-config", r#"{"provider":"@a/b"}"#)], BodyPeek::default(), &["a/b"]),
    ] {
        let Err(PlanError::EntityNotFound { slugs, reasons }) = plan(&snapshot, &chat(headers), &peek) else {
            panic!("{headers:?}")
        };
        assert_eq!(slugs, expected);
        assert_eq!(reasons.len(), slugs.len());
    }
}

#[test]
fn inactive_and_faulty_entities_are_not_used() {
    let sample = sample::openai()
        .virtual_key("off", "openai-main", "disabled")
        .config_with_status("pc-off", "archived", r#"{"provider":"@openai-prod"}"#)
        .integration("broken", "openai", Some("ref:nothing"), "{}");
    let snapshot = sample.link_with(false);
    for (header, slug, expected) in [
        ("x-portkey-virtual-key", "off", "inactive"),
        ("x-portkey-virtual-key", "broken", "misconfigured"),
        ("x-portkey-virtual-key", "nobody", "not found"),
        ("x-portkey-config", "pc-off", "inactive"),
    ] {
        let error = plan(&snapshot, &chat(&[(header, slug)]), &BodyPeek::default()).unwrap_err();
        let found = match error {
            PlanError::EntityInactive { .. } => "inactive",
            PlanError::Misconfigured { .. } => "misconfigured",
            PlanError::EntityNotFound { .. } => "not found",
            other => panic!("{other}"),
        };
        assert_eq!(found, expected, "{slug}");
    }
    assert!(snapshot.entity("openai-prod", &Caller::default()).is_ok());
}

#[test]
fn a_request_without_a_name_passes_or_is_rejected() {
    let snapshot = three().link();
    let truncated = BodyPeek { truncated: true, ..BodyPeek::default() };
    for (uri, peek, reject, expected) in [
        ("/v1/chat/completions", BodyPeek::default(), false, Ok(Mode::Unmatched)),
        ("/v1/chat/completions", truncated.clone(), false, Ok(Mode::Unmatched)),
        ("/v1/chat/completions", BodyPeek::default(), true, Err(PlanError::NoEntity)),
        ("/v1/chat/completions", truncated, true, Err(PlanError::BodyTooLarge)),
        ("/v1/chat/completions", model("@a/m"), true, Ok(Mode::Header)),
        ("/", BodyPeek::default(), true, Ok(Mode::Unmatched)),
    ] {
        let settings = Settings { reject_unmatched: reject, ..Settings::default() };
        let head = head(http::Method::POST, uri, &[("x-portkey-provider", "openai")]);
        let planned = plan_with(settings, &snapshot, &head, &peek);
        assert_eq!(planned.map(|plan| plan.mode), expected, "{uri} {peek:?}");
    }
}

#[test]
fn a_faulty_body_is_refused_whoever_is_named() {
    let peek = BodyPeek { fault: Some("two models"), ..BodyPeek::default() };
    let refused = plan(&three().link(), &chat(&[("x-portkey-provider", "@a")]), &peek).unwrap_err();
    assert_eq!(refused, PlanError::InvalidBody { reason: "two models".to_owned() });
}
