//! Usage as providers write it, in documents and in streams.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const JSON: &str = "application/json";
const SSE: &str = "text/event-stream; charset=utf-8";
const AWS: &str = "application/vnd.amazon.eventstream";

/// Input, cached, written, output; zeros = the answer does not say.
type Numbers = (u64, u64, u64, u64);

struct Case {
    name: &'static str,
    media: &'static str,
    body: Vec<u8>,
    tokens: Numbers,
    model: Option<&'static str>,
}

fn case(name: &'static str, media: &'static str, body: &str, tokens: Numbers, model: Option<&'static str>) -> Case {
    Case { name, media, body: body.into(), tokens, model }
}

fn headers(media: &str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_str(media).unwrap())])
}

fn scan<'b>(media: &str, pieces: impl IntoIterator<Item = &'b [u8]>, ended: bool) -> Usage {
    let mut scan = UsageScan::new(&headers(media));
    pieces.into_iter().for_each(|piece| scan.feed(piece));
    scan.finish(ended, 40)
}

fn message(headers: &[u8], payload: &str) -> Vec<u8> {
    let total = 16 + headers.len() + payload.len();
    let mut bytes = Vec::with_capacity(total);
    bytes.extend((total as u32).to_be_bytes());
    bytes.extend((headers.len() as u32).to_be_bytes());
    bytes.extend([0xde; 4]);
    bytes.extend(headers);
    bytes.extend(payload.as_bytes());
    bytes.extend([0xad; 4]);
    bytes
}

/// Anthropic's stream as its reference prints it.
const ANTHROPIC: &str = "event: message_start\r
data: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[],\"model\":\"claude-3-5-sonnet-20241022\",\"stop_reason\":null,\"usage\":{\"input_tokens\":25,\"cache_creation_input_tokens\":7,\"cache_read_input_tokens\":3,\"cache_creation\":{\"ephemeral_5m_input_tokens\":7},\"output_tokens\":1,\"service_tier\":\"standard\"}}}\r
\r
event: ping\r
data: {\"type\": \"ping\"}\r
\r
event: content_block_delta\r
data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"{\\\"usage\\\":{\\\"input_tokens\\\":9999}}\"}}\r
\r
event: message_delta\r
data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":15}}\r
\r
event: message_stop\r
data: {\"type\":\"message_stop\"}\r
\r
";

const OPENAI: &str = "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o-2024-08-06\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\"usage\":null}

data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o-2024-08-06\",\"choices\":[],\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":10,\"total_tokens\":29,\"prompt_tokens_details\":{\"cached_tokens\":8,\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0}}}

data: [DONE]

";

fn cases() -> Vec<Case> {
    let converse = [
        message(
            b"\x0b:event-type\x07\x00\x11contentBlockDelta",
            r#"{"contentBlockIndex":0,"delta":{"text":"hi"},"p":"abc"}"#,
        ),
        message(b"", ""),
        message(
            b"\x0b:event-type\x07\x00\x08metadata",
            r#"{"metrics":{"latencyMs":1275},"p":"ab","usage":{"inputTokens":125,"outputTokens":60,"totalTokens":185}}"#,
        ),
    ];
    let chunk = |json: &str| message(b"", &format!(r#"{{"bytes":"{}","p":"abcd"}}"#, STANDARD.encode(json)));
    let invoke = [
        chunk(
            r#"{"type":"message_start","message":{"model":"claude-3-sonnet","usage":{"input_tokens":13,"output_tokens":2}}}"#,
        ),
        chunk(r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":44}}"#),
        chunk(
            r#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":13,"outputTokenCount":44,"invocationLatency":1}}"#,
        ),
    ];
    vec![
        case(
            "chat completion",
            JSON,
            r#" {"id":"c1","model":"gpt-4o","choices":[{"message":{"content":"\"usage\": {\"total_tokens\": 7}","usage":{"total_tokens":8}}}],
               "usage":{"prompt_tokens": 9 ,"completion_tokens":12,"total_tokens":21,"completion_tokens_details":{"reasoning_tokens":3}},"x":"y"}"#,
            (9, 0, 0, 12),
            Some("gpt-4o"),
        ),
        case(
            "embeddings",
            JSON,
            r#"{"object":"list","data":[{"embedding":[0.1,-2e3]}],"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}"#,
            (8, 0, 0, 0),
            Some("text-embedding-3-small"),
        ),
        case(
            "responses",
            JSON,
            r#"{"id":"r","model":"gpt-4.1","output":[],"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":16},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":123}}"#,
            (20, 16, 0, 87),
            Some("gpt-4.1"),
        ),
        case(
            "responses, streamed",
            SSE,
            "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"model\":\"gpt-4.1\",\"usage\":null}}\n\nevent: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"model\":\"gpt-4.1\",\"usage\":{\"input_tokens\":37,\"output_tokens\":11,\"total_tokens\":48}}}\n\n",
            (37, 0, 0, 11),
            Some("gpt-4.1"),
        ),
        case("chat completion, streamed", SSE, OPENAI, (11, 8, 0, 10), Some("gpt-4o-2024-08-06")),
        case("messages, streamed", SSE, ANTHROPIC, (25, 3, 7, 15), Some("claude-3-5-sonnet-20241022")),
        case(
            "one event on several lines",
            SSE,
            "data: {\"usage\":\ndata: {\"total_tokens\":5,\ndata:\"prompt_tokens\":3}}\n\n",
            (3, 0, 0, 2),
            None,
        ),
        case(
            "no end of line",
            SSE,
            "data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}",
            (3, 0, 0, 4),
            None,
        ),
        case(
            "messages",
            JSON,
            r#"{"type":"message","model":"claude","usage":{"input_tokens":2095,"output_tokens":503,"cache_read_input_tokens":10,"cache_creation_input_tokens":20}}"#,
            (2095, 10, 20, 503),
            Some("claude"),
        ),
        case(
            "messages in OpenAI's shape",
            JSON,
            r#"{"model":"claude","usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":135,"prompt_tokens_details":{"cached_tokens":100},"cache_read_input_tokens":100,"cache_creation_input_tokens":20}}"#,
            (10, 100, 20, 5),
            Some("claude"),
        ),
        case(
            "cached tokens among the input in both spellings",
            JSON,
            r#"{"usage":{"prompt_tokens":130,"completion_tokens":5,"total_tokens":135,"cache_read_input_tokens":100,"cache_creation_input_tokens":20}}"#,
            (10, 100, 20, 5),
            None,
        ),
        case(
            "converse",
            JSON,
            r#"{"output":{"message":{"role":"assistant"}},"usage":{"inputTokens":30,"outputTokens":628,"totalTokens":658}}"#,
            (30, 0, 0, 628),
            None,
        ),
        Case { name: "converse, streamed", media: AWS, body: converse.concat(), tokens: (125, 0, 0, 60), model: None },
        Case {
            name: "invoke, streamed",
            media: AWS,
            body: invoke.concat(),
            tokens: (13, 0, 0, 44),
            model: Some("claude-3-sonnet"),
        },
        case(
            "gemini, a list of documents",
            JSON,
            "[{\"candidates\":[],\"usageMetadata\":{\"promptTokenCount\":4,\"candidatesTokenCount\":1,\"totalTokenCount\":5},\"modelVersion\":\"gemini-2.5-pro\"}\n,\r\n{\"usageMetadata\":{\"promptTokenCount\":4,\"candidatesTokenCount\":10,\"thoughtsTokenCount\":6,\"totalTokenCount\":20,\"cachedContentTokenCount\":1},\"modelVersion\":\"gemini-2.5-pro\"}]",
            (3, 1, 0, 16),
            Some("gemini-2.5-pro"),
        ),
        case(
            "groq, streamed",
            SSE,
            "data: {\"model\":\"llama\",\"choices\":[],\"x_groq\":{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3}}}\n\n",
            (1, 0, 0, 2),
            Some("llama"),
        ),
        case(
            "cohere",
            JSON,
            r#"{"id":"c","finish_reason":"COMPLETE","message":{"role":"assistant","content":[]},"usage":{"billed_units":{"input_tokens":11,"output_tokens":3},"cached_tokens":448,"tokens":{"input_tokens":506,"output_tokens":4}}}"#,
            (58, 448, 0, 4),
            None,
        ),
        case(
            "cohere, streamed",
            SSE,
            "event: content-delta\ndata: {\"type\":\"content-delta\",\"delta\":{\"message\":{\"content\":{\"text\":\"hi\"}}}}\n\nevent: message-end\ndata: {\"type\":\"message-end\",\"delta\":{\"finish_reason\":\"COMPLETE\",\"usage\":{\"billed_units\":{\"input_tokens\":18,\"output_tokens\":55},\"tokens\":{\"input_tokens\":27,\"output_tokens\":55}}}}\n\n",
            (27, 0, 0, 55),
            None,
        ),
        case(
            "cohere's version 1, a document on each line",
            "application/stream+json",
            "{\"event_type\":\"text-generation\",\"text\":\"Hel\"}\n{\"event_type\":\"stream-end\",\"response\":{\"text\":\"Hello\",\"meta\":{\"billed_units\":{\"input_tokens\":2,\"output_tokens\":2},\"tokens\":{\"input_tokens\":68,\"output_tokens\":3}}}}\n",
            (68, 0, 0, 3),
            None,
        ),
        case(
            "cohere's embeddings",
            JSON,
            r#"{"embeddings":{"float":[[0.5,-0.25]]},"meta":{"api_version":{"version":"2"},"billed_units":{"input_tokens":12}}}"#,
            (12, 0, 0, 0),
            None,
        ),
        case(
            "interactions",
            JSON,
            r#"{"id":"v1","status":"completed","model":"gemini-3-flash","usage":{"total_input_tokens":9,"total_output_tokens":779,"total_thought_tokens":912,"total_tokens":1700,"total_cached_tokens":2}}"#,
            (7, 2, 0, 1691),
            Some("gemini-3-flash"),
        ),
        case(
            "interactions, streamed",
            SSE,
            "event: interaction.completed\ndata: {\"event_type\":\"interaction.completed\",\"interaction\":{\"model\":\"gemini-3-flash\",\"usage\":{\"total_input_tokens\":9,\"total_output_tokens\":779,\"total_tokens\":788}}}\n\n",
            (9, 0, 0, 779),
            Some("gemini-3-flash"),
        ),
        case(
            "unlabelled",
            "text/plain",
            r#"{"usage":{"prompt_tokens":1,"completion_tokens":2},"model":"a\/b"}"#,
            (1, 0, 0, 2),
            Some("a/b"),
        ),
        case(
            "numbers in quotes, with fractions and exponents",
            JSON,
            r#"{"usage":{"prompt_tokens":"9","completion_tokens":1e3,"total_tokens":1009.0}}"#,
            (9, 0, 0, 1000),
            None,
        ),
        case(
            "numbers that are none",
            JSON,
            r#"{"usage":{"prompt_tokens":"nine","completion_tokens":-3,"total_tokens":7.9,"output_tokens":null,"input_tokens":"4 \"}}"#,
            (0, 0, 0, 8),
            None,
        ),
        case(
            "more than fits",
            JSON,
            r#"{"usage":{"prompt_tokens":99999999999999999999999,"completion_tokens":1}}"#,
            (u64::MAX, 0, 0, 1),
            None,
        ),
    ]
}

fn check(case: &Case, usage: &Usage) {
    let Tokens { input, cached, written, output } = usage.tokens;
    assert_eq!((input, cached, written, output), case.tokens, "{}", case.name);
    assert_eq!((usage.model.as_deref(), usage.estimated), (case.model, false), "{}", case.name);
}

#[test]
fn answers_say_what_they_used_wherever_they_are_split() {
    for case in cases() {
        let whole = scan(case.media, [&*case.body], true);
        check(&case, &whole);
        assert_eq!(scan(case.media, case.body.chunks(1), true), whole, "{}, byte by byte", case.name);
        for at in 0..=case.body.len() {
            let (start, end) = case.body.split_at(at);
            assert_eq!(scan(case.media, [start, end], true), whole, "{} at {at}", case.name);
        }
    }
}

#[test]
fn what_is_not_said_is_estimated() {
    let delta = |text: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
    let stream = [delta("a"), delta("b"), delta("c"), "data: [DONE]\n\n".to_owned()].concat();
    let long = [delta(""), delta(&"x".repeat(400))].concat();
    let compressed = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static(JSON)),
        (CONTENT_ENCODING, HeaderValue::from_static("gzip")),
    ]);
    let (start, _) = ANTHROPIC.split_once("event: message_delta").unwrap();
    #[rustfmt::skip]
    let cases: [(&str, HeaderMap, &str, bool, Numbers); 9] = [
        ("a stream without usage", headers(SSE), &stream, true, (10, 0, 0, 3)),
        ("long events", headers(SSE), &long, true, (10, 0, 0, 100)),
        ("a document without usage", headers(JSON), r#"{"choices":[{"text":"abcdefghijkl"}]}"#, true, (10, 0, 0, 10)),
        ("sound", headers("audio/mpeg"), "{\"usage\":{\"total_tokens\":3}}", true, (10, 0, 0, 0)),
        ("compressed", compressed, "{\"usage\":{\"total_tokens\":3}}", true, (10, 0, 0, 0)),
        ("no answer at all", headers(JSON), "", true, (10, 0, 0, 0)),
        ("messages, broken off", headers(SSE), start, false, (25, 3, 7, 105)),
        ("a model with a long name", headers(JSON), &format!(r#"{{"model":"{}"}}"#, "m".repeat(129)), true, (10, 0, 0, 36)),
        ("no event stream", headers(AWS), "{\"usage\":{\"total_tokens\":3}}", true, (10, 0, 0, 0)),
    ];
    for (name, headers, body, ended, expected) in cases {
        let mut scan = UsageScan::new(&headers);
        scan.feed(body.as_bytes());
        let Usage { tokens: Tokens { input, cached, written, output }, estimated, model } = scan.finish(ended, 40);
        assert_eq!((input, cached, written, output), expected, "{name}");
        assert!(estimated, "{name}");
        assert_eq!(model.is_some(), name.starts_with("messages"), "{name}");
    }
    // Beside a total there is nothing to estimate, and a stream that was read to its last event has ended.
    let (start, _) = OPENAI.split_once("data: [DONE]").unwrap();
    let usage = scan(SSE, [start.as_bytes()], false);
    assert_eq!((usage.tokens.total(), usage.estimated), (29, false));
    let mut pictures = UsageScan::new(&headers(JSON));
    pictures.feed(b"{}");
    assert_eq!(pictures.finish(true, 1 << 30).tokens.input, MAX_ESTIMATED_INPUT);
}

/// What each spelling of a count of output tokens amounts to; `None` = the answer says nothing and is estimated.
#[test]
fn counts_are_read_however_they_are_written() {
    let cases: &[(&str, Option<u64>)] = &[
        ("1000", Some(1000)),
        ("1e3", Some(1000)),
        ("1E+3", Some(1000)),
        ("1000.0", Some(1000)),
        ("999.2", Some(1000)),
        ("10000e-1", Some(1000)),
        (r#""1000""#, Some(1000)),
        (r#""1e3""#, Some(1000)),
        ("1e300", Some(u64::MAX)),
        ("123456789012345678901234567890", Some(u64::MAX)),
        ("0", Some(0)),
        ("-1", None),
        ("-1e3", None),
        (r#""-1000""#, None),
        (r#""""#, None),
        (r#"" 1000""#, None),
        (r#""1000 tokens""#, None),
        (r#""10\u0030""#, None),
        ("null", None),
        ("true", None),
        ("[1000]", None),
        (r#"{"output_tokens":1000}"#, None),
        ("1000x", None),
        ("0x3e8", None),
    ];
    for (written, expected) in cases {
        let body = format!(r#"{{"usage":{{"output_tokens":{written},"service_tier":"a"}},"model":"m"}}"#);
        let usage = scan(JSON, [body.as_bytes()], true);
        let counted = (!usage.estimated).then_some(usage.tokens.output);
        assert_eq!((counted, usage.model.as_deref()), (*expected, Some("m")), "{written}");
        for at in 0..=body.len() {
            let (start, end) = body.as_bytes().split_at(at);
            assert_eq!(scan(JSON, [start, end], true), usage, "{written} at {at}");
        }
    }
}

#[test]
fn bedrock_counts_in_headers_too() {
    let mut headers = headers(JSON);
    headers.insert(BEDROCK_INPUT, HeaderValue::from_static("7"));
    headers.insert(BEDROCK_OUTPUT, HeaderValue::from_static("11"));
    let mut scan = UsageScan::new(&headers);
    scan.feed(br#"{"generation":"hello"}"#);
    let usage = scan.finish(true, 40);
    assert_eq!((usage.tokens.input, usage.tokens.output, usage.estimated), (7, 11, false));
}

proptest! {
    #[test]
    fn any_split_counts_the_same(which in 0usize..26, cuts in prop::collection::vec(0.0f64..1.0, 0..12)) {
        let cases = cases();
        let case = &cases[which % cases.len()];
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| (cut * case.body.len() as f64) as usize).collect();
        cuts.extend([0, case.body.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &case.body[cut[0]..cut[1]]);
        let usage = scan(case.media, pieces, true);
        check(case, &usage);
    }

    #[test]
    fn nothing_breaks_it(body in prop::collection::vec(any::<u8>(), 0..300), media in 0usize..4, split in 0usize..300) {
        let media = [JSON, SSE, AWS, "text/plain"][media];
        let (start, end) = body.split_at(split.min(body.len()));
        prop_assert_eq!(scan(media, [start, end], true), scan(media, [&*body], true));
    }

    /// What the scanner makes of a document is what a parser makes of it, whatever stands around the usage.
    #[test]
    fn a_parser_agrees(
        junk in "[ -~]{0,40}", before in any::<bool>(), prompt in 0u64..1_000_000, completion in 0u64..1_000_000,
    ) {
        let junk = serde_json::json!({ junk.clone(): [junk.clone(), {"usage": {"total_tokens": 1}, "t": junk}] });
        let usage = serde_json::json!({
            "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}});
        let (junk, usage) = (junk.to_string(), usage.to_string());
        let (first, second) = if before { (&junk, &usage) } else { (&usage, &junk) };
        let body = format!("{},{}", first.strip_suffix('}').unwrap(), second.strip_prefix('{').unwrap());
        prop_assume!(body.matches("\"usage\":{").count() <= 2);
        let found = scan(JSON, body.as_bytes().chunks(3), true);
        prop_assert_eq!((found.tokens.input, found.tokens.output, found.estimated), (prompt, completion, false));
    }
}
