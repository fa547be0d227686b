//! The stage itself: that the servers around Sidekey are what the other tests take them for. Sidekey has no part here.

use futures_util::{SinkExt, StreamExt};
use http::Method;
use serde_json::json;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

use crate::{
    client::Call,
    components::{Gateway, KubeApiserver, OpenBao, kube::AUDIENCE},
    provider::Provider,
};

/// The gateway trusts the certificates of our internet, and each provider sees its own host and credential.
pub async fn gateway_reaches_every_host() {
    let provider = Provider::start().await;
    let gateway = Gateway::start(provider.authority_file()).await;
    let bedrock = [
        ("x-portkey-aws-access-key-id", "AKIAEXAMPLE"),
        ("x-portkey-aws-secret-access-key", "aws-secret"),
        ("x-portkey-aws-region", "eu-west-1"),
    ];
    let azure = [
        ("authorization", "Bearer azure-key"),
        ("x-portkey-azure-resource-name", "myres"),
        ("x-portkey-azure-deployment-id", "dep-1"),
        ("x-portkey-azure-api-version", "2024-10-21"),
    ];
    let key = [("authorization", "Bearer sk-1")];
    for (name, headers, host, path, credential, starts) in [
        ("openai", &key[..], "api.openai.com", "/v1/chat/completions", "authorization", "Bearer sk-1"),
        ("anthropic", &key[..], "api.anthropic.com", "/v1/messages", "x-api-key", "sk-1"),
        (
            "bedrock",
            &bedrock[..],
            "bedrock-runtime.eu-west-1.amazonaws.com",
            "/model/m/converse",
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/",
        ),
        (
            "azure-openai",
            &azure[..],
            "myres.openai.azure.com",
            "/openai/deployments/dep-1/chat/completions",
            "api-key",
            "azure-key",
        ),
    ] {
        let mut call = Call::chat("m", "ping").header("x-portkey-provider", name);
        for (header, value) in headers {
            call = call.header(header, value);
        }
        let reply = call.send(gateway.address).await.expect(200);
        assert_eq!(reply.json()["choices"][0]["message"]["content"], "pong", "{name}: {}", reply.text());
        let seen = provider.take_one();
        assert_eq!((seen.scheme, seen.host.as_str(), seen.path()), ("https", host, path), "{name}");
        assert!(seen.header(credential).starts_with(starts), "{name}: {:?}", seen.headers);
    }
}

/// Each event passes before the next is sent: the provider holds it back until the client has seen the one before.
pub async fn gateway_streams_chunk_by_chunk() {
    let provider = Provider::start().await;
    let gateway = Gateway::start(provider.authority_file()).await;
    let body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "gate:a"}]});
    let call = Call::post("/v1/chat/completions").json(&body);
    let mut reply =
        call.header("x-portkey-provider", "openai").header("authorization", "Bearer sk-1").open(gateway.address).await;
    for token in ["token-0", "token-1", "token-2"] {
        reply.until(token).await;
        provider.release("a");
    }
    provider.release("a");
    reply.until("[DONE]").await;
}

/// A realtime session carries frames both ways and the code with which it is closed.
pub async fn gateway_opens_realtime_sessions() {
    let provider = Provider::start().await;
    let gateway = Gateway::start(provider.authority_file()).await;
    let mut request = format!("ws://{}/v1/realtime?model=gpt-realtime", gateway.address).into_client_request().unwrap();
    request.headers_mut().insert("x-portkey-provider", "openai".parse().unwrap());
    request.headers_mut().insert("authorization", "Bearer sk-1".parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.expect("a session");
    let hello = socket.next().await.unwrap().unwrap();
    assert!(hello.to_text().unwrap().contains("session.created"), "{hello}");
    socket.send(Message::binary(&b"\x00\xff"[..])).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(&b"\x00\xff"[..]));
    socket.send(Message::text("close:4001:enough")).await.unwrap();
    let Some(Ok(Message::Close(Some(frame)))) = socket.next().await else { panic!("no close frame") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4001, "enough"));
    let seen = provider.take_one();
    assert_eq!((seen.host.as_str(), seen.header("authorization").as_str()), ("api.openai.com", "Bearer sk-1"));
}

/// The audit log tells how often a secret was read; the policy holds.
pub async fn openbao_counts_reads() {
    let bao = OpenBao::start().await;
    bao.put("openai", json!({"api_key": "sk-1"})).await;
    for round in 0..3 {
        assert_eq!(bao.reads("secret/data/openai"), round);
        let reply = Call::get("/v1/secret/data/openai").header("x-vault-token", &bao.token).send(bao.address).await;
        assert_eq!(reply.expect(200).json()["data"]["data"]["api_key"], "sk-1");
    }
    let denied = Call::post("/v1/secret/data/openai").header("x-vault-token", &bao.token).json(&json!({"data": {}}));
    denied.send(bao.address).await.expect(403);
    bao.seal().await;
    bao.call(Method::GET, "secret/data/openai", &json!({})).await.expect(503);
    bao.unseal().await;
    bao.call(Method::GET, "secret/data/openai", &json!({})).await.expect(200);
}

/// A ServiceAccount's token logs in through a real TokenReview; another account's does not.
pub async fn openbao_logs_in_service_accounts() {
    let (bao, cluster) = tokio::join!(OpenBao::start(), KubeApiserver::start());
    cluster.admit(&bao, "sidekey", "sidekey").await;
    for (name, audience, admitted) in
        [("sidekey", AUDIENCE, true), ("stranger", AUDIENCE, false), ("other-audience", "elsewhere", false)]
    {
        let account = cluster.service_account(name, audience).await;
        let login = Call::post("/v1/auth/kubernetes/login").json(&json!({"role": "sidekey", "jwt": account.token}));
        let reply = login.send(bao.address).await;
        assert_eq!(reply.status.is_success(), admitted, "{name}: {} {}", reply.status, reply.text());
    }
}
