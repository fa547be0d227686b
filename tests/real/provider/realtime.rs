//! The realtime API: a WebSocket that greets like OpenAI's and then says back what it hears.
//!
//! Text `close:CODE:REASON` makes it close so. An event `response.create` is answered by `response.done`; any other text or
//! binary frame comes back as it is.

use futures_util::{SinkExt, StreamExt};
use http::{Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role},
    },
};

use super::Received;

/// The response to an upgrade request; the conversation goes on in a task.
pub fn accept(request: &Received, upgrade: OnUpgrade) -> Response<()> {
    let mut response = Response::new(());
    let Some(key) = request.headers.get("sec-websocket-key") else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = derive_accept_key(key.as_bytes());
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
    response.headers_mut().insert("sec-websocket-accept", accept.parse().expect("a header value"));
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            // An end without a handshake is the client's affair.
            let _ = converse(WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, None).await).await;
        }
    });
    response
}

async fn converse<S>(mut socket: WebSocketStream<S>) -> Result<(), tokio_tungstenite::tungstenite::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let hello = json!({"type": "session.created", "event_id": "event_1",
                       "session": {"id": "sess_1", "object": "realtime.session", "type": "realtime"}});
    socket.send(Message::text(hello.to_string())).await?;
    while let Some(message) = socket.next().await {
        match message? {
            Message::Text(text) if text.starts_with("close:") => {
                let mut parts = text.splitn(3, ':').skip(1);
                let code = parts.next().and_then(|code| code.parse::<u16>().ok()).unwrap_or(1000);
                let reason = parts.next().unwrap_or_default().to_owned();
                socket.close(Some(CloseFrame { code: code.into(), reason: reason.into() })).await?;
            }
            Message::Text(text) => {
                let event: Value = serde_json::from_str(&text).unwrap_or_default();
                let reply = if event["type"] == "response.create" {
                    Message::text(
                        json!({"type": "response.done", "event_id": "event_2", "response": {"id": "resp_1",
                        "object": "realtime.response", "status": "completed", "output": []}})
                        .to_string(),
                    )
                } else {
                    Message::Text(text)
                };
                socket.send(reply).await?;
            }
            binary @ Message::Binary(_) => socket.send(binary).await?,
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
        }
    }
    Ok(())
}
