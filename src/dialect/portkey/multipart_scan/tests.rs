//! Forms as clients send them and as nobody should, cut into any chunks; the gateway's parser decides what is right.

use proptest::prelude::*;

use super::*;

fn scan_in(boundary: &str, body: &[u8], size: usize, complete: bool) -> BodyPeek {
    let mut scan = MultipartScan::new(boundary);
    for chunk in body.chunks(size.max(1)) {
        scan.feed(chunk);
    }
    scan.finish(complete)
}

/// Scans `body` at every chunk size and expects the same each time.
#[track_caller]
fn scan(boundary: &str, body: &[u8], complete: bool) -> BodyPeek {
    let whole = scan_in(boundary, body, body.len(), complete);
    for size in 1..body.len().min(80) {
        assert_eq!(
            scan_in(boundary, body, size, complete),
            whole,
            "chunks of {size}: {}",
            String::from_utf8_lossy(body)
        );
    }
    whole
}

/// A form with boundary `B` of these header blocks and contents.
fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (headers, content) in parts {
        body.extend_from_slice(format!("--B\r\n{headers}\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--B--\r\n");
    body
}

const MODEL: &str = "Content-Disposition: form-data; name=\"model\"";
const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav";
const TEXT: &str = "Content-Disposition: form-data; name=\"prompt\"";

fn cut(body: &[u8], range: Range<usize>, replacement: &[u8]) -> Vec<u8> {
    [&body[..range.start], replacement, &body[range.end..]].concat()
}

#[test]
fn finds_the_model_in_forms_as_clients_send_them() {
    let rows: [(&str, &str, &[u8]); 4] = [
        (
            "openai 3.57 for Python, over httpx",
            "b06a98c7a89a0f876b903b0f1a1e8ae8",
            b"--b06a98c7a89a0f876b903b0f1a1e8ae8\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n@slug/whisper-1\r\n\
              --b06a98c7a89a0f876b903b0f1a1e8ae8\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a %22q%22 \xc3\xa9.wav\"\r\n\
              Content-Type: audio/x-wav\r\n\r\nRIFF\r\n--x\x00\xff\r\n--b06a98c7a89a0f876b903b0f1a1e8ae8--\r\n",
        ),
        (
            "openai 6.49 and portkey-ai 3.1 for JavaScript, over undici",
            "----formdata-undici-085623594476",
            b"------formdata-undici-085623594476\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a %22q%22 \xc3\xa9.wav\"\r\n\
              Content-Type: application/octet-stream\r\n\r\nRIFF\r\n--x\x00\r\n------formdata-undici-085623594476\r\n\
              Content-Disposition: form-data; name=\"model\"\r\n\r\n@slug/whisper-1\r\n------formdata-undici-085623594476--\r\n",
        ),
        (
            "curl -F file=@a -F model=…",
            "------------------------d74496d66958873e",
            b"--------------------------d74496d66958873e\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\
              Content-Type: application/octet-stream\r\n\r\n\r\n\r\n--------------------------d74496d66958873e\r\n\
              Content-Disposition: form-data; name=\"model\"\r\n\r\n@slug/whisper-1\r\n--------------------------d74496d66958873e--\r\n",
        ),
        (
            ".NET MultipartFormDataContent",
            "e2f6b9b2-1f0c-4f5e-8a3e-0a8f2b6a1c11",
            b"--e2f6b9b2-1f0c-4f5e-8a3e-0a8f2b6a1c11\r\nContent-Type: text/plain; charset=utf-8\r\n\
              Content-Disposition: form-data; name=model\r\n\r\n@slug/whisper-1\r\n--e2f6b9b2-1f0c-4f5e-8a3e-0a8f2b6a1c11\r\n\
              Content-Disposition: form-data; name=file; filename=a.wav; filename*=utf-8''a.wav\r\n\r\nx\r\n\
              --e2f6b9b2-1f0c-4f5e-8a3e-0a8f2b6a1c11--\r\n",
        ),
    ];
    for (client, boundary, body) in rows {
        let peek = scan(boundary, body, true);
        let model = peek.model.unwrap_or_else(|| panic!("{client}"));
        assert_eq!((model.value.as_str(), model.json, peek.fault), ("@slug/whisper-1", false, None), "{client}");
        assert_eq!(&body[model.value_span.clone()], b"@slug/whisper-1", "{client}");
        let replaced = cut(body, model.value_span, b"whisper-1");
        assert_eq!(scan(boundary, &replaced, true).model.unwrap().value, "whisper-1", "{client}");
        let removed = cut(body, model.member_span, b"");
        assert_eq!(scan(boundary, &removed, true), BodyPeek::default(), "{client}");
        assert!(removed.starts_with(format!("--{boundary}\r\n").as_bytes()), "{client}");
        assert!(removed.ends_with(format!("--{boundary}--\r\n").as_bytes()), "{client}");
    }
}

#[test]
fn cutting_the_only_part_leaves_an_empty_form() {
    let body = form(&[(MODEL, b"@a/b")]);
    let model = scan("B", &body, true).model.unwrap();
    assert_eq!(cut(&body, model.member_span, b""), b"--B--\r\n");
}

#[test]
fn reads_a_part_as_node_does() {
    let name = |disposition: &str| format!("Content-Disposition: {disposition}");
    let long = "x".repeat(MAX_MODEL);
    let rows: Vec<(String, &[u8], Option<&str>)> = vec![
        (MODEL.to_lowercase(), b"m", Some("m")),
        ("CONTENT-DISPOSITION : form-data; name=\"model\"".into(), b"m", Some("m")),
        ("Content-Disposition:form-data; name=\"model\"".into(), b"m", Some("m")),
        (format!("X-A: b\r\n{MODEL}\r\nContent-Type: text/plain"), b"m", Some("m")),
        (format!("{MODEL}\r\nContent-Transfer-Encoding: Binary"), b"m", Some("m")),
        (MODEL.into(), b"", Some("")),
        (MODEL.into(), b" \r\n--\r\n--C\r\r\n", Some(" \r\n--\r\n--C\r\r\n")),
        (MODEL.into(), b"\xef\xbb\xbf@a/b", Some("@a/b")),
        (MODEL.into(), b"\xef\xbb\xbf\xef\xbb\xbf@a/b", Some("@a/b")),
        (MODEL.into(), b"\xef\xbb\xbf\xef\xbb\xbf\xef\xbb\xbf@a/b", Some("\u{feff}@a/b")),
        (MODEL.into(), b"a\xffb", Some("a\u{fffd}b")),
        (MODEL.into(), long.as_bytes(), Some(&long)),
        (name("form-data; name=\"\u{feff}model\""), b"m", Some("m")),
        (format!("{MODEL}\r\nX-A: {}", "y".repeat(9000)), b"m", Some("m")),
        // Readings of RFC 7578 that Node refuses.
        (name("form-data;name=model"), b"m", Some("m")),
        (name("FORM-DATA; NAME=\"model\" "), b"m", Some("m")),
        (name("form-data; name=\"mod\\el\"; x=y"), b"m", Some("m")),
        (name("form-data; charset=\"utf-8\"; name=\"model\""), b"m", Some("m")),
        // Not this part.
        (name("form-data; name=\"Model\""), b"m", None),
        (name("form-data; name=\"mod%65l\""), b"m", None),
        (name("form-data; name=\"mod\\el\""), b"m", None),
        (name("form-data; name=\"model\\\""), b"m", None),
        (name("form-data; name=\"x\"; filename=\"; name=\\\"model\""), b"m", None),
        (name("form-data; name=\"x\"; filename=\"a\\\"; name=model"), b"m", None),
        (name("form-data; filename=\"model\""), b"m", None),
        (name("attachment; name=\"model\""), b"m", None),
        (name("form-data"), b"m", None),
        ("Content-Type: text/plain; name=\"model\"".into(), b"m", None),
        ("".into(), b"m", None),
        // A file is no text.
        (name("form-data; name=\"model\"; filename=\"a\""), b"m", None),
        (name("form-data; name=\"model\"; filename*=\"a\""), b"m", None),
        (name("form-data; name=model; filename*=utf-8''a"), b"m", None),
    ];
    for (headers, content, expected) in &rows {
        let body = form(&[(TEXT, b"p"), (headers, content), (TEXT, b"q")]);
        let peek = scan("B", &body, true);
        assert_eq!((peek.model.map(|model| model.value).as_deref(), peek.fault), (*expected, None), "{headers:.80}");
    }
    let unreadable = BodyPeek { unreadable: true, ..BodyPeek::default() };
    for (headers, content) in
        [(MODEL, "x".repeat(MAX_MODEL + 1)), (&format!("{MODEL}; filename=\"a\""), "m".to_owned())]
    {
        assert_eq!(scan("B", &form(&[(headers, content.as_bytes())]), true), unreadable, "{headers}");
    }
}

#[test]
fn refuses_forms_that_readers_take_differently() {
    let rows: Vec<(Vec<u8>, &str)> = vec![
        (form(&[(MODEL, b"a"), (MODEL, b"b")]), DUPLICATE),
        (form(&[(MODEL, b"a"), (TEXT, b"p"), (&MODEL.to_uppercase().replace("MODEL", "model"), b"b")]), DUPLICATE),
        (form(&[(FILE, b"x"), (MODEL, b"a"), (MODEL, b"b")]), DUPLICATE),
        (form(&[(&format!("{MODEL}; filename=\"a\""), b"a"), (MODEL, b"b")]), DUPLICATE),
        (form(&[(MODEL, &[b'x'; MAX_MODEL + 1]), (MODEL, b"b")]), DUPLICATE),
        (form(&[(MODEL, b"a"), (&MODEL.replace("\"model\"", "model"), b"b")]), DUPLICATE),
        // Node takes two bytes for a line end where one of them is right: it sees `model` in all of these.
        (form(&[(&format!("{TEXT}\rX{MODEL}"), b"a")]), AMBIGUOUS),
        (form(&[(&format!("{TEXT}x\n{MODEL}"), b"a")]), AMBIGUOUS),
        (form(&[(&format!("{MODEL}\rX"), b"a")]), AMBIGUOUS),
        (b"--B\r\nContent-Disposition: form-data; name=\"model\"\rX\r\n@a/b\r\n--B--".to_vec(), AMBIGUOUS),
        (b"--B\r\nX-A: b\n\n".to_vec(), AMBIGUOUS),
        (form(&[(&format!("X-A: b\r\n {MODEL}"), b"a")]), AMBIGUOUS),
        (form(&[(&format!("\t{MODEL}"), b"a")]), AMBIGUOUS),
        (form(&[(&format!("{TEXT}\r\n{MODEL}"), b"a")]), AMBIGUOUS),
        (form(&[(&format!("{TEXT}; name=\"model\""), b"a")]), AMBIGUOUS),
        (form(&[(&format!("{TEXT}; filename=\"a\"; name=\"model\""), b"a")]), AMBIGUOUS),
        (form(&[("Content-Disposition: form-data; name*=utf-8''model", b"a")]), AMBIGUOUS),
        (form(&[(&format!("{MODEL}\r\nContent-Transfer-Encoding: base64"), b"QA==")]), ENCODED),
        (form(&[(&format!("X-A: {}\r\n{MODEL}", "y".repeat(MAX_HEADERS)), b"a")]), HEADERS_TOO_LONG),
        // Broken once the model is known.
        (b"--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--B".to_vec(), NOT_A_FORM),
        (b"--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--Bx".to_vec(), NOT_A_FORM),
        (b"--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na".to_vec(), NOT_A_FORM),
        (form(&[(MODEL, b"a"), ("no colon", b"b")]), NOT_A_FORM),
    ];
    for (body, fault) in &rows {
        assert_eq!(scan("B", body, true).fault, Some(*fault), "{:.120}", String::from_utf8_lossy(body));
    }
}

#[test]
fn finds_nothing_where_there_is_no_form() {
    let rows: [&[u8]; 10] = [
        b"",
        b"--B--",
        b"--B--\r\n",
        b"{\"model\":\"@a/b\"}",
        b"--C\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--C--",
        b"--B\nContent-Disposition: form-data; name=\"model\"\n\na\n--B--\n",
        b"x--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--B--",
        b"--B--\r\n--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--B--",
        b"--B\r\nno colon\r\n\r\nx\r\n--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--B--",
        b"--Bx\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--B--",
    ];
    for body in rows {
        assert_eq!(scan("B", body, true), BodyPeek::default(), "{}", String::from_utf8_lossy(body));
    }
    // What RFC 2046 allows around a form.
    let wrapped = [b"preamble\r\n".as_slice(), &form(&[(MODEL, b"a")]), b"epilogue\r\n--B"].concat();
    assert_eq!(scan("B", &wrapped, true).model.unwrap().value, "a");
    let padded = String::from_utf8(form(&[(MODEL, b"a")])).unwrap().replace("--B\r\n", "--B \t\r\n");
    assert_eq!(scan("B", padded.as_bytes(), true).model.unwrap().value, "a");
    let leading = [b"\r\n\r\n".as_slice(), &form(&[(MODEL, b"a")])].concat();
    assert_eq!(scan("B", &leading, true).model.unwrap().member_span, 4..leading.len() - 7);
}

#[test]
fn looks_no_further_than_the_file_behind_the_model() {
    let mut scan = MultipartScan::new("B");
    let body = form(&[(MODEL, b"a"), (TEXT, b"p"), (FILE, b"x")]);
    let file = body.len() - b"x\r\n--B--\r\n".len();
    assert_eq!(scan.feed(&body[..file - 1]), Progress::More);
    assert_eq!(scan.feed(&body[file - 1..file]), Progress::Done);
    let peek = scan.finish(false);
    assert_eq!((peek.truncated, peek.fault, peek.model.unwrap().value.as_str()), (false, None, "a"));
    // And skips the file before it, up to where the caller gives up.
    let body = form(&[(FILE, &[b'\r'; 100]), (MODEL, b"a")]);
    assert_eq!(scan_in("B", &body, 7, true).model.unwrap().value, "a");
    let cut_off = scan_in("B", &body[..150], 7, false);
    assert_eq!((cut_off.truncated, cut_off.model, cut_off.fault), (true, None, None));
}

#[test]
fn takes_any_boundary_the_gateway_takes() {
    for boundary in ["", "-", "--", "a b", "é", &"b".repeat(300)] {
        let body = format!("--{boundary}\r\n{MODEL}\r\n\r\n@a/b\r\n--{boundary}--\r\n");
        assert_eq!(scan(boundary, body.as_bytes(), true).model.unwrap().value, "@a/b", "{boundary}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn finds_the_model_wherever_it_stands(
        before in prop::collection::vec((any::<bool>(), prop::collection::vec(content_piece(), 0..12)), 0..4),
        value in "[ -~é\r\n]{0,40}",
        after in prop::collection::vec(prop::collection::vec(content_piece(), 0..12), 0..4),
        size in 1_usize..50,
    ) {
        let contents: Vec<_> = before.iter().map(|(file, content)| (*file, content.concat())).collect();
        let behind: Vec<_> = after.iter().map(|content| content.concat()).collect();
        let mut parts: Vec<(&str, &[u8])> = contents.iter().map(|(file, content)| (if *file { FILE } else { TEXT }, content.as_slice())).collect();
        let at = parts.len();
        parts.push((MODEL, value.as_bytes()));
        parts.extend(behind.iter().map(|content| (TEXT, content.as_slice())));
        let body = form(&parts);
        let peek = scan_in("B", &body, size, true);
        prop_assert_eq!(peek.fault, None);
        let model = peek.model.unwrap();
        prop_assert_eq!(&model.value, &value);
        prop_assert_eq!(&body[model.value_span], value.as_bytes());
        parts.remove(at);
        prop_assert_eq!(cut(&body, model.member_span, b""), form(&parts));
    }

    #[test]
    fn never_panics_and_never_depends_on_chunks(
        pieces in prop::collection::vec(prop_oneof![
            content_piece(),
            Just(b"--B".to_vec()), Just(b"\r\n--B\r\n".to_vec()), Just(MODEL.as_bytes().to_vec()), Just(b"\r\n\r\n".to_vec()),
        ], 0..24),
        size in 1_usize..9,
        complete in any::<bool>(),
    ) {
        let body = pieces.concat();
        prop_assert_eq!(scan_in("B", &body, size, complete), scan_in("B", &body, usize::MAX, complete));
    }
}

/// Pieces that come close to a delimiter and never make one, as none ends where the next can complete it.
fn content_piece() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![
        "\r",
        "\n",
        "\r\n",
        "\r\n-",
        "\r\n--A",
        "\r\n--\r\n",
        "--C",
        "a",
        "\u{0}",
        "é",
        "\r\r\n--",
        ": ;\"",
    ])
    .prop_map(|piece| piece.as_bytes().to_vec())
}
