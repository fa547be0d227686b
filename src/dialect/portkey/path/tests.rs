//! Paths that are served, paths that are not, and every spelling by which one is made to look like the other.

use super::*;

const REFUSED: Result<Route, &str> = Err("refused");
const UNKNOWN: Result<Route, &str> = Err("not found");

fn outcome(method: &Method, uri: &str) -> Result<Route, &'static str> {
    let uri: Uri = uri.parse().unwrap();
    route(method, &uri).map_err(|error| match error {
        PlanError::NotFound => "not found",
        PlanError::DestinationNotAllowed { .. } => "refused",
        other => panic!("{other}"),
    })
}

#[track_caller]
fn table(rows: &[(&str, Result<Route, &'static str>)]) {
    for (path, expected) in rows {
        assert_eq!(outcome(&Method::POST, path), *expected, "{path}");
    }
}

#[test]
fn serves_the_gateway_and_nothing_beside_it() {
    table(&[
        ("/v1/chat/completions", Ok(Route::Gateway)),
        ("/v1/chat/completions?a=//b@c#", Ok(Route::Gateway)),
        ("/v1/", Ok(Route::Gateway)),
        ("/v1/proxy", Ok(Route::Gateway)),
        ("/v1/proxy/", Ok(Route::Gateway)),
        ("/v1/proxy/v1/rerank", Ok(Route::Gateway)),
        ("/v1/files/file-abc.jsonl/content", Ok(Route::Gateway)),
        ("/v1/a..b/.well-known/...", Ok(Route::Gateway)),
        // Ids that need their escapes: a Bedrock job, encoded once and twice, and a name outside ASCII.
        ("/v1/batches/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Amodel-invocation-job%2Fabc", Ok(Route::Gateway)),
        ("/v1/batches/arn%253Aaws%253Abedrock%252Fabc", Ok(Route::Gateway)),
        ("/v1/models/mod%C3%A8le%20un~%7E", Ok(Route::Gateway)),
        ("/v1/models/100%25", Ok(Route::Gateway)),
        ("/v1/models/100%25zz", Ok(Route::Gateway)),
        ("http://anywhere.example/v1/models", Ok(Route::Gateway)),
        ("http://user@anywhere.example:1/v1/models", Ok(Route::Gateway)),
        ("/v1", UNKNOWN),
        ("/v2/chat/completions", UNKNOWN),
        ("/V1/chat/completions", UNKNOWN),
        ("/v1x/chat", UNKNOWN),
        ("/%76%31/files", UNKNOWN),
        ("/v1%2Ffiles", UNKNOWN),
        ("/log/stream", UNKNOWN),
        ("/public/", UNKNOWN),
        ("/public/auth", UNKNOWN),
        ("/", UNKNOWN),
        ("//v1/chat/completions", UNKNOWN),
        ("/./v1/chat/completions", UNKNOWN),
        ("*", UNKNOWN),
    ]);
}

#[test]
fn the_root_is_for_get_and_tunnels_are_for_nobody() {
    let rows = [
        (Method::GET, "/", Ok(Route::Gateway)),
        (Method::GET, "/?x=1", Ok(Route::Gateway)),
        (Method::GET, "http://anywhere.example", Ok(Route::Gateway)),
        (Method::POST, "/", UNKNOWN),
        (Method::HEAD, "/", UNKNOWN),
        (Method::PUT, "/v1/configs/pc-1", Ok(Route::Admin)),
        (Method::DELETE, "/v1/files/1", Ok(Route::Gateway)),
        (Method::OPTIONS, "*", UNKNOWN),
        (Method::CONNECT, "anywhere.example:443", UNKNOWN),
        (Method::CONNECT, "/v1/realtime", UNKNOWN),
        (Method::TRACE, "/v1/models", UNKNOWN),
    ];
    for (method, path, expected) in rows {
        assert_eq!(outcome(&method, path), expected, "{method} {path}");
    }
}

#[test]
fn admin_prefixes_end_at_a_segment() {
    for name in ADMIN {
        for prefix in ["", "/v1"] {
            for (rest, admin) in
                [("", true), ("/", true), ("/slug/x?y=z", true), ("?a=b", true), ("s", false), ("-x/y", false)]
            {
                let path = format!("{prefix}/{name}{rest}");
                let expected = match (admin, prefix) {
                    (true, _) => Ok(Route::Admin),
                    (false, "/v1") => Ok(Route::Gateway),
                    (false, _) => UNKNOWN,
                };
                assert_eq!(outcome(&Method::GET, &path), expected, "{path}");
            }
        }
    }
    table(&[
        // What either side could read as an admin path never reaches a provider.
        ("/v1/configs%2Fpc-1", Ok(Route::Admin)),
        ("/v1/configs;x/pc-1", Ok(Route::Admin)),
        ("/v1/configs%3Bx", Ok(Route::Admin)),
        ("/v1/configs%252Fpc-1", Ok(Route::Admin)),
        ("/configs%2Fpc-1", UNKNOWN),
        ("/v1/Configs", Ok(Route::Gateway)),
        ("/v1/chat/configs", Ok(Route::Gateway)),
        ("/v1/v1/configs", Ok(Route::Gateway)),
    ]);
}

#[test]
fn the_feed_is_out_of_reach() {
    table(&[
        ("/v1/snapshot", UNKNOWN),
        ("/v1/snapshot?wait=60", UNKNOWN),
        ("/v1/snapshot/", UNKNOWN),
        ("/v1/snapshot;x", UNKNOWN),
        ("/v1/snapshot%2Fx", UNKNOWN),
        ("/snapshot", UNKNOWN),
        ("/v1/configs/../snapshot", REFUSED),
        ("/configs/..%2Fsnapshot", REFUSED),
        ("/configs/%2e%2e/snapshot", REFUSED),
        ("/configs/..;/snapshot", REFUSED),
        ("/configs//snapshot", REFUSED),
        ("/configs%2F..%2Fsnapshot", UNKNOWN),
        ("/v1/snapshots", Ok(Route::Gateway)),
    ]);
}

#[test]
fn refuses_what_could_name_a_host() {
    let refused = [
        // Continues the provider's host or port (cohere and about twenty others append the rest of the path to the host).
        "/v1/proxy.attacker.example/x",
        "/v1/proxy2/x",
        "/v1/proxy%2eattacker.example/x",
        "/v1/proxy%2Fx",
        "/v1/proxy%40attacker.example",
        "/v1/proxy:80/x",
        "/v1/proxy;/x",
        "/v1/Proxy.attacker.example/x",
        "/v1/x/v1/proxy.attacker.example",
        "/v1/x%2Fv1%2Fproxy.attacker.example",
        // azure-openai takes the host from the path, wherever the name stands in a segment.
        "/v1/attacker.example/a.openai.azure.com/x",
        "/v1/attacker.example/a.OpenAI.Azure.com",
        "/v1/attacker.example/a.openai.azure.com.x/y",
        "/v1/proxy/127.0.0.1/a.openai.azure.com/x",
        "/v1/proxy/127.0.0.1/a%252Eopenai.azure.com",
        "/v1/proxy/127.0.0.1/a.openai%2Eazure.com",
        // Bedrock and Vertex decode a file id into a host or a bucket.
        "/v1/files/s3%3A%2F%2Fattacker.example%23",
        "/v1/files/s3%253A%252F%252Fattacker.example",
        "/v1/files/attacker.example%23",
        "/v1/files/attacker.example%3F",
        "/v1/files/attacker.example%253Fx",
        "/v1/files/x%40attacker.example",
        "/v1/files/x@attacker.example",
        "/v1/files/attacker.example%5Cx",
        "/v1/files/attacker.example\\x",
        // Routed as files, read as something else; the query then supplies the id.
        "/v1/%66iles/x?/v1/files/attacker.example%23",
        "/v1/f%69les/x",
        "/v1/fine%5Ftuning/jobs",
        "/v1/chat%2Dx",
        // Traversal and empty segments.
        "/v1/../log/stream",
        "/v1/..",
        "/v1/.",
        "/v1/./chat",
        "/v1/%2e%2e/log/stream",
        "/v1/.%2e/log",
        "/v1/%252e%252e/log",
        "/v1/%25252e%25252e/log",
        "/v1/x%2F..%2Fy",
        "/v1/..;x/y",
        "/v1//attacker.example",
        "/v1/x//y",
        "/v1/x/%2F",
        "/v1/%2Fattacker.example",
        "/v1/proxy//attacker.example",
        "/v1/proxy/%2Fattacker.example",
        // Control characters, broken escapes, bytes no URI has, towers of encodings.
        "/v1/x%00",
        "/v1/x%0d%0ahost:%20y",
        "/v1/x%09",
        "/v1/x%7f",
        "/v1/x%2500",
        "/v1/x%",
        "/v1/x%2",
        "/v1/x%zz",
        "/v1/x%u002e",
        "/v1/ｆiles/x",
        "/v1/x．openai．azure．com",
        "/v1/%252525252525252525252525252525252566",
    ];
    for path in refused {
        assert_eq!(outcome(&Method::GET, path), REFUSED, "{path}");
        assert_eq!(outcome(&Method::GET, &format!("http://ok.example{path}")), REFUSED, "{path}");
    }
}

#[test]
fn what_is_accepted_decodes_to_itself_for_every_reader() {
    use proptest::prelude::*;
    let pieces = prop::sample::select(vec![
        "a",
        "files",
        "proxy",
        ".",
        "..",
        "/",
        "//",
        "%2F",
        "%2f",
        "%252F",
        "%2e",
        "%40",
        "@",
        "%23",
        "%3F",
        "%25",
        "%",
        "\\",
        "%5c",
        ";",
        ":",
        "%3A",
        "-",
        ".openai.azure.com",
        "v1",
        "%61",
        "%C3%A9",
        "%0a",
        "~",
    ]);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(parts in prop::collection::vec(pieces, 0..8))| {
        let path = format!("/v1/{}", parts.concat());
        let Ok(uri) = path.parse::<Uri>() else { return Ok(()) };
        if outcome(&Method::GET, &path).is_err() {
            return Ok(());
        }
        // A URL library resolves nothing, and neither one nor two decodings reach a forbidden form.
        let resolved = url::Url::parse(&format!("http://upstream{path}")).unwrap();
        prop_assert_eq!(resolved.path(), uri.path());
        let once = percent_decode(path.as_bytes()).decode_utf8_lossy().into_owned();
        let twice = percent_decode(once.as_bytes()).decode_utf8_lossy().into_owned();
        for text in [&path, &once, &twice] {
            prop_assert!(!text.contains(['@', '\\', '#', '?', '\n']), "{}", text);
            prop_assert!(!text.contains("//") && !text.contains(".openai.azure.com"), "{}", text);
            prop_assert!(!text.split('/').any(|segment| segment == "." || segment == ".."), "{}", text);
        }
        prop_assert_eq!(once.starts_with("/v1/files"), path.starts_with("/v1/files"));
    });
}
