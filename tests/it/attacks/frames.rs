//! HTTP/2, frame by frame (RFC 9113, RFC 7541).

use tokio::io::{AsyncRead, AsyncWrite};

use crate::harness::Wire;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PRIORITY: u8 = 2;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A field that is not kept in the table.
pub fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        length(text.len(), &mut field);
        field.extend(text);
    }
    field
}

/// A field that is kept in the table.
pub fn kept(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut field = field(name, value);
    field[0] = 0x40;
    field
}

/// An integer with a prefix of seven bits (RFC 7541 5.1).
fn length(value: usize, out: &mut Vec<u8>) {
    if value < 127 {
        out.push(u8::try_from(value).unwrap());
        return;
    }
    out.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        out.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    out.push(u8::try_from(rest).unwrap());
}

/// The fields that every request has.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    [(":method", method), (":scheme", "http"), (":path", path), (":authority", "s")]
        .into_iter()
        .flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes()))
        .collect()
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Begins a connection.
pub async fn begin<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) {
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    wire.send(frame(SETTINGS, 0, 0, &[])).await;
}

/// The next frame: kind, flags, stream, payload.
pub async fn next<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> (u8, u8, u32, Vec<u8>) {
    let head = wire.take(9).await;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    (head[3], head[4], stream, wire.take(usize::try_from(length).unwrap()).await)
}
