//! A name server that knows every name (RFC 1035): A records for all, nothing else for anybody.

use std::{net::Ipv4Addr, sync::Arc};

use tokio::net::UdpSocket;

use super::World;

const HEADER_BYTES: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];

/// Answers until the socket dies.
pub async fn serve(socket: UdpSocket, world: Arc<World>) {
    let mut query = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut query).await {
        if let Some(answer) = answer(&query[..length], |name| world.address_of(name)) {
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

/// The reply to a query with one question; `None` for anything that is not one.
fn answer(query: &[u8], address: impl Fn(&str) -> Ipv4Addr) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = HEADER_BYTES;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(std::str::from_utf8(query.get(at..at + length)?).ok()?.to_ascii_lowercase());
        at += length;
    }
    let kind = query.get(at..at + 2)?;
    let question = query.get(HEADER_BYTES..at + 4)?;
    let found = kind == TYPE_A;

    let mut reply = query.get(..2)?.to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(found), 0, 0, 0, 0]); // a recursive answer without error
    reply.extend(question);
    if found {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]); // the name asked for, IN A, lifetime 0, four bytes
        reply.extend(address(&labels.join(".")).octets());
    }
    Some(reply)
}
