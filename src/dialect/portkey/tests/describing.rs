//! Plans as people see them.

use crate::{
    dialect::portkey::{
        BodyPeek, FieldDescription, Mode, Place, ValueSource,
        sample::{self, Sample, chat, head, model, plan},
    },
    model::EntityKind,
};

fn fields(sample: &Sample, headers: &[(&str, &str)]) -> Vec<FieldDescription> {
    let head = chat(headers);
    let planned = plan(&sample.link(), &head, &BodyPeek::default()).unwrap();
    planned.describe(&head).targets.into_iter().flat_map(|target| target.fields).collect()
}

fn field(name: &'static str, place: Place, source: ValueSource) -> FieldDescription {
    FieldDescription { name, place, source }
}

#[test]
fn fields_say_where_they_go_and_where_they_come_from() {
    let sample = sample::openai().integration(
        "e",
        "openai",
        Some("sk-canary"),
        r#"{"openai_project":"p","custom_headers":{"x-team":"canary"}}"#,
    );
    let header = |name: &'static str| Place::Header(http::HeaderName::from_static(name));
    for (headers, expected) in [
        (
            &[("x-portkey-provider", "@openai-prod")][..],
            vec![field("api_key", header("authorization"), ValueSource::Reference("openai-key".into()))],
        ),
        (
            &[("x-portkey-config", r#"{"provider":"@openai-prod"}"#)],
            vec![field("api_key", Place::Config, ValueSource::Reference("openai-key".into()))],
        ),
        (
            &[("x-portkey-provider", "@e")],
            vec![
                field("api_key", header("authorization"), ValueSource::Stored),
                field("openai_project", header("x-portkey-openai-project"), ValueSource::Plain("p".to_owned())),
                field("custom_headers", Place::CustomHeaders, ValueSource::Stored),
            ],
        ),
        (&[("x-portkey-provider", "openai")], vec![]),
    ] {
        let mut found = fields(&sample, headers);
        found.sort_by_key(|field| (field.name == "custom_headers", field.name));
        assert!(!format!("{found:?}").contains("canary"));
        assert_eq!(found, expected, "{headers:?}");
    }
}

#[test]
fn what_changes_is_listed() {
    let head = head(
        http::Method::POST,
        "/v1/chat/completions?model=@openai-prod/m",
        &[("authorization", "Bearer client"), ("x-portkey-api-key", "pk"), ("x-tenant", "t"), ("cookie", "c")],
    );
    let planned = plan(&sample::openai().link(), &head, &model("@openai-prod/gpt-4o")).unwrap();
    let described = planned.describe(&head);
    assert_eq!((described.mode, described.body_changes, described.query_changes), (Mode::Header, true, true));
    assert_eq!(described.removed, ["authorization", "x-portkey-api-key", "cookie"]);
    assert_eq!(described.targets[0].kind, EntityKind::VirtualKey);
    assert_eq!(&*described.targets[0].provider, "openai");
}
