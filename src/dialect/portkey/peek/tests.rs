//! Which bodies are looked into, and how far.

use http::Request;

use super::*;

fn head(method: Method, content_types: &[&str]) -> Parts {
    let mut request = Request::builder().method(method).uri("/v1/chat/completions");
    for value in content_types {
        request = request.header(CONTENT_TYPE, *value);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn looks_where_the_gateway_parses() {
    let form = |boundary: &str| PeekKind::Multipart(boundary.to_owned());
    let rows: Vec<(&str, PeekKind)> = vec![
        ("application/json", PeekKind::Json),
        ("application/json; charset=utf-8", PeekKind::Json),
        ("Application/JSON ;charset=x", PeekKind::Json),
        ("audio/wav", PeekKind::Json),
        ("", PeekKind::Json),
        ("application/vnd.api+json", PeekKind::None),
        ("text/plain", PeekKind::None),
        ("application/x-www-form-urlencoded", PeekKind::None),
        ("application/octet-stream", PeekKind::None),
        ("multipart/mixed; boundary=b", PeekKind::None),
        // Without a boundary the gateway parses no form, but its JSON routes still parse JSON.
        ("multipart/form-data", PeekKind::Json),
        ("multipart/form-data; boundary=", PeekKind::Json),
        ("multipart/form-data; boundary =b", PeekKind::Json),
        ("multipart/form-data; boundary=b", form("b")),
        ("multipart/form-data;boundary=b ; charset=x", form("b")),
        ("Multipart/Form-Data; BOUNDARY=b", form("b")),
        ("multipart/form-data; charset=\"a;boundary=no\"; boundary=\"a \\\"b\\\\\"x;y", form("a \"b\\")),
        ("multipart/form-data; boundary=a; boundary=b", form("a")),
        ("multipart/form-data; boundary=; boundary=b", form("b")),
        ("multipart/form-data; boundary=\"\"; boundary=b", form("")),
        ("multipart/form-data; x; boundary= a", form(" a")),
        ("multipart/form-data; boundary=\"open", form("open")),
        (
            "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
            form("----WebKitFormBoundary7MA4YWxkTrZu0gW"),
        ),
    ];
    for (value, expected) in rows {
        assert_eq!(kind(&head(Method::POST, &[value])), expected, "{value}");
    }
    assert_eq!(kind(&head(Method::POST, &[])), PeekKind::Json);
    for method in [Method::GET, Method::DELETE, Method::HEAD, Method::OPTIONS, Method::PUT, Method::PATCH] {
        assert_eq!(kind(&head(method, &["application/json"])), PeekKind::None);
    }
}

#[test]
fn content_encoding_hides_nothing() {
    let mut head = head(Method::POST, &["application/json"]);
    head.headers.insert(http::header::CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
    assert_eq!(kind(&head), PeekKind::Json);
}

#[test]
fn several_types_are_refused() {
    let rows: [(&[&str], bool); 8] = [
        (&[], true),
        (&["application/json"], true),
        (&["multipart/form-data; boundary=\"a,b\""], true),
        (&["multipart/form-data; boundary=\"a\\\",b\""], true),
        (&["application/json;, multipart/form-data; boundary=b"], false),
        (&["multipart/form-data; boundary=a, multipart/form-data; boundary=b"], false),
        (&["multipart/form-data; x=\"a\\\\\",y"], false),
        (&["application/json", "multipart/form-data; boundary=b"], false),
    ];
    for (values, accepted) in rows {
        assert_eq!(check(&head(Method::POST, values)).is_ok(), accepted, "{values:?}");
    }
}

#[test]
fn a_body_is_what_its_first_byte_says() {
    let form = b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nof the form\r\n--b--";
    let json = b" \r\n{\"model\":\"of the object\"}";
    let kinds = [PeekKind::None, PeekKind::Json, PeekKind::Multipart("b".to_owned())];
    let rows: [(&[u8], [Option<&str>; 3]); 3] = [
        (form, [None, None, Some("of the form")]),
        (json, [None, Some("of the object"), Some("of the object")]),
        (b" \r\n", [None, None, None]),
    ];
    for (body, expected) in rows {
        for (kind, expected) in kinds.iter().zip(expected) {
            for size in 1..=body.len() {
                let mut scan = BodyScan::new(kind);
                let mut progress = Progress::More;
                for chunk in body.chunks(size) {
                    progress = scan.feed(chunk);
                }
                assert_eq!(scan.finish(true).model.map(|model| model.value).as_deref(), expected, "{kind:?} {size}");
                assert_eq!(progress == Progress::More, *kind != PeekKind::None && body == b" \r\n", "{kind:?} {size}");
            }
        }
    }
    assert_eq!(BodyScan::new(&PeekKind::None).feed(b""), Progress::Done);
}
