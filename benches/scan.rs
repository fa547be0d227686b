//! How fast the model of a body is found: bytes per second, with serde_json's full parse beside it.
//!
//! Run with `cargo bench --bench scan`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sidekey::dialect::portkey::{BodyScan, PeekKind};

/// What one read of a socket brings.
const CHUNK: usize = 16 * 1024;

/// A chat of about `size` bytes: short turns, some escapes, `model` behind the messages as the Python SDK writes it.
fn chat(size: usize) -> Vec<u8> {
    let turn = r#"{"role":"user","content":"What did \"they\" say about the river?\nPlease answer in one or two sentences, and name your sources."},"#;
    let turns = turn.repeat(size / turn.len());
    format!(r#"{{"messages":[{}],"model":"@openai-prod/gpt-4o","stream":true}}"#, turns.trim_end_matches(','))
        .into_bytes()
}

/// A chat whose weight is one picture.
fn picture(size: usize) -> Vec<u8> {
    let data = "iVBORw0KGgo".repeat(size / 11);
    format!(
        r#"{{"model":"@openai-prod/gpt-4o","messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}]}}]}}"#
    )
    .into_bytes()
}

/// A transcription with the file before the model, as the JavaScript SDK writes it. Its bytes are as random as sound is.
fn form(size: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let sound = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    let mut body = b"--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n".to_vec();
    body.extend(sound.take(size));
    body.extend_from_slice(
        b"\r\n--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n@openai-prod/whisper-1\r\n--B--\r\n",
    );
    body
}

fn scan(kind: &PeekKind, body: &[u8]) -> bool {
    let mut scan = BodyScan::new(kind);
    for chunk in body.chunks(CHUNK) {
        scan.feed(chunk);
    }
    scan.finish(true).model.is_some()
}

fn bodies(criterion: &mut Criterion) {
    let form_kind = PeekKind::Multipart("B".to_owned());
    let rows = [
        ("chat", PeekKind::Json, chat(1024)),
        ("chat", PeekKind::Json, chat(100 * 1024)),
        ("picture", PeekKind::Json, picture(100 * 1024)),
        ("form", form_kind, form(100 * 1024)),
    ];
    let mut group = criterion.benchmark_group("find the model");
    for (name, kind, body) in &rows {
        assert!(scan(kind, body), "{name}");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_with_input(BenchmarkId::new(*name, body.len()), body, |bencher, body| {
            bencher.iter(|| scan(kind, black_box(body)));
        });
        if *kind == PeekKind::Json {
            group.bench_with_input(
                BenchmarkId::new(format!("{name}, serde_json"), body.len()),
                body,
                |bencher, body| {
                    bencher.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(body)).is_ok());
                },
            );
        }
    }
    group.finish();
}

criterion_group!(benches, bodies);
criterion_main!(benches);
