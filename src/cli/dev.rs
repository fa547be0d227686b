//! `sidekey dev`: the whole way of a credential on loopback, without an account and without a file to write.
//!
//! A secret in a private folder, a snapshot that names it, a sidecar, and an echo in the place of the gateway (or, with
//! `--upstream`, of the provider behind a real one). One request names the virtual key; what arrived is printed.

mod echo;
mod shorten;
mod stage;
mod story;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{net::TcpListener, time::timeout};
use url::Url;

use self::{
    echo::{Arrival, Echo},
    stage::{REFERENCE, Stage, VIRTUAL_KEY},
    story::Cast,
};
use super::{Exit, Screen, block_on, screen::printable};
use crate::{
    app::{Sidecar, Signals, chain},
    config::{self, Config, Invalid},
    telemetry::{self, Format, Level},
};

/// Preferred ports of clients, administration and echo.
const PORTS: [u16; 3] = [8900, 8901, 8902];
/// What is asked for.
const PATH: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}"#;
/// How long the one request may take, and the echo may take to tell of it.
const PATIENCE: Duration = Duration::from_secs(15);
/// Largest answer that is looked at, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// How the one request ended.
enum Outcome {
    /// It arrived with the credential.
    Arrived(Arrival),
    /// It was answered by a gateway that cannot reach the echo.
    Answered(StatusCode),
    /// It did not arrive as it should; what happened, as a sentence.
    Lost(String),
}

/// A fault of the show itself.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// Shows the main job. Stays until Ctrl-C, or with `once` ends with whether the request arrived.
pub fn run(upstream: Option<&Url>, once: bool) -> Exit {
    let log = telemetry::Settings { level: Level::WARN, format: Some(Format::Text) };
    if let Err(error) = telemetry::start(log) {
        Screen::stderr().line(chain(&error));
        return Exit::Usage;
    }
    match block_on(play(upstream, once)) {
        Ok(Ok(true)) => Exit::Fine,
        Ok(Ok(false)) | Err(_) => Exit::Failed,
        Ok(Err(error)) => {
            Screen::stderr().line(printable(&chain(error.as_ref())));
            match error.downcast_ref::<Invalid>() {
                Some(invalid) => {
                    Screen::stderr().problems(&invalid.problems);
                    Exit::Usage
                }
                None => Exit::Failed,
            }
        }
    }
}

/// Whether the request arrived.
async fn play(upstream: Option<&Url>, once: bool) -> Result<bool, Error> {
    let mut signals = Signals::listen()?;
    let mut screen = Screen::stdout();
    let mut echo = Echo::start(bind(PORTS[2]).await?)?;
    let echo_url = Url::parse(&format!("http://{}", echo.address))?;
    let gateway = upstream.unwrap_or(&echo_url);
    // A gateway on this machine can be told to take the credential to the echo, another one would not find it.
    let provider = upstream.filter(|gateway| config::is_loopback(gateway)).map(|_| &echo_url);
    let secret = draw_secret()?;
    // Declared before the sidecar, so that the folder goes after it.
    let stage = Stage::build(&secret, provider)?;
    let (listen, admin_listen) = (free(PORTS[0]).await?, free(PORTS[1]).await?);
    let config = Config::parse("dev", &stage.configuration(listen, admin_listen, gateway.as_str()), [])?;
    let sidecar = Sidecar::start(config).await?;
    let address = sidecar.addresses().first().copied().unwrap_or(listen);
    story::introduce(
        &mut screen,
        &Cast {
            sidecar: address,
            admin: sidecar.admin_address(),
            gateway,
            echo: upstream.is_none(),
            folder: stage.folder(),
        },
    );
    let tells = upstream.is_none() || provider.is_some();
    let outcome = tokio::select! {
        outcome = ask(address, &secret, tells, &mut echo) => Some(outcome),
        () = signals.stopped() => None,
    };
    if let Some(outcome) = &outcome {
        story::report(&mut screen, outcome);
        story::invite(&mut screen, address);
    }
    if outcome.is_some() && !once {
        screen.line("  Ctrl-C stops it and removes everything.\n");
        loop {
            tokio::select! {
                Some(arrival) = echo.arrivals.recv() => story::retell(&mut screen, &arrival),
                () = signals.stopped() => break,
            }
        }
    }
    sidecar.stop().await;
    Ok(matches!(outcome, Some(Outcome::Arrived(_) | Outcome::Answered(_))))
}

/// Sends the one request and waits until the echo tells of it; `telling` says whether it can.
async fn ask(sidecar: SocketAddr, secret: &str, telling: bool, echo: &mut Echo) -> Outcome {
    let asked = async {
        let request = Request::post(format!("http://{sidecar}{PATH}"))
            .header("content-type", "application/json")
            .header("x-portkey-provider", format!("@{VIRTUAL_KEY}"))
            .body(Full::<Bytes>::from(BODY))?;
        let response = Client::builder(TokioExecutor::new()).build_http().request(request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        Ok::<_, Error>((head, body))
    };
    let (head, body) = match timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Outcome::Lost(format!("The sidecar did not answer: {}.", chain(error.as_ref()))),
        Err(_) => return Outcome::Lost(format!("There was no answer within {} seconds.", PATIENCE.as_secs())),
    };
    if let Some(code) = head.headers.get("x-sidekey-error") {
        let code = String::from_utf8_lossy(code.as_bytes()).into_owned();
        return Outcome::Lost(format!("The sidecar answered {} {code}: {}.", head.status, message(&body)));
    }
    if !telling {
        return Outcome::Answered(head.status);
    }
    match echo.arrivals.try_recv() {
        Ok(arrival) if arrival.header("authorization") == Some(&format!("Bearer {secret}")) => {
            Outcome::Arrived(arrival)
        }
        Ok(_) => Outcome::Lost("It arrived without the credential.".to_owned()),
        Err(_) => Outcome::Lost(format!("The gateway answered {} by itself: {}.", head.status, message(&body))),
    }
}

/// What an answer says, in one line.
fn message(body: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match json.pointer("/error/message").or_else(|| json.get("message")).and_then(serde_json::Value::as_str) {
        Some(message) => message.chars().take(200).collect(),
        None => "no message".to_owned(),
    }
}

/// A listener on `port` of the loopback address, or on a free port when that is taken.
async fn bind(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await,
    }
}

/// An address on `port`, or on any port when that is taken.
async fn free(port: u16) -> io::Result<SocketAddr> {
    let address = bind(port).await?.local_addr()?;
    Ok(if address.port() == port { address } else { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) })
}

/// A credential that opens nothing.
fn draw_secret() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(format!("sk-dev-{:032x}", u128::from_ne_bytes(bytes)))
}
