//! `sidekey dev`: the whole way of a credential on loopback, without an account and without a file to write.
//!
//! A secret in a private folder, a control plane that is told of it, a sidecar that follows its feed, and an echo in the place
//! of the gateway (or, with `--upstream`, of the provider behind a real one). One request names the virtual key; what arrived
//! is printed.

mod echo;
mod plane;
mod shorten;
mod stage;
mod story;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
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
    plane::Plane,
    stage::{REFERENCE, Stage, VIRTUAL_KEY},
    story::{Cast, Role},
};
use super::{Exit, Screen, block_on, screen::printable};
use crate::{
    app::{Sidecar, Signals, chain},
    config::{self, Config, Invalid},
};

/// Preferred ports of clients, administration and the control plane.
const PORTS: [u16; 3] = [8900, 8901, 8902];
/// Where the system picks a port.
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
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
    match block_on(play(upstream, once)) {
        Ok(Ok(true)) => Exit::Fine,
        Ok(Ok(false)) | Err(_) => Exit::Failed,
        Ok(Err(error)) => {
            let mut screen = Screen::stderr();
            match error.downcast_ref::<Invalid>() {
                // The one value of the configuration that is not ours.
                Some(Invalid { problems }) => {
                    for problem in problems {
                        screen.line(match &*problem.key {
                            "upstream.url" => printable(&format!("--upstream: {}", problem.message)),
                            _ => printable(&problem.to_string()),
                        });
                    }
                    Exit::Usage
                }
                None => {
                    screen.line(printable(&chain(error.as_ref())));
                    Exit::Failed
                }
            }
        }
    }
}

/// Whether the request arrived.
async fn play(upstream: Option<&Url>, once: bool) -> Result<bool, Error> {
    // Any of them ends the show: a hang-up is a terminal that was closed.
    let mut signals = Signals::listen()?;
    let mut screen = Screen::stdout();
    let mut echo = Echo::start(TcpListener::bind(ANY_PORT).await?)?;
    let echo_url = Url::parse(&format!("http://{}", echo.address))?;
    let gateway = upstream.unwrap_or(&echo_url);
    // A gateway on this machine can be told to take the credential to the echo, another one would not find it.
    let role = match upstream {
        None => Role::Gateway,
        Some(gateway) if config::is_loopback(gateway) => Role::Provider(echo.address),
        Some(_) => Role::Nobody,
    };
    let secret = draw_secret()?;
    // Declared before the sidecar, so that the folder goes after it.
    let stage = Stage::build(&secret)?;
    let provider = matches!(role, Role::Provider(_)).then_some(&echo_url);
    let plane = Plane::start(stage.folder(), free(PORTS[2]).await?, provider).await?;
    let following = plane.configuration();
    let configure = |listen, admin_listen| {
        Config::parse("dev", &stage.configuration(&following, listen, admin_listen, gateway.as_str()), [])
    };
    let started = Sidecar::start(configure(free(PORTS[0]).await?, free(PORTS[1]).await?)?).await;
    let sidecar = match started {
        // A port was taken between the look and the start.
        Err(error) if !error.is_configuration() => Sidecar::start(configure(ANY_PORT, ANY_PORT)?).await?,
        started => started?,
    };
    let address = sidecar.addresses().first().copied().unwrap_or(ANY_PORT);
    let cast = Cast {
        sidecar: address,
        admin: sidecar.admin_address(),
        control: plane.address(),
        gateway,
        echo: role,
        folder: stage.folder(),
    };
    story::introduce(&mut screen, &cast);
    let outcome = tokio::select! {
        outcome = ask(address, &plane.api_key, &secret, role != Role::Nobody, &mut echo) => Some(outcome),
        _ = signals.next() => None,
    };
    if let Some(outcome) = &outcome {
        story::report(&mut screen, &cast, outcome);
        story::invite(&mut screen, address, &plane.api_key);
    }
    if outcome.is_some() && !once {
        screen.line("  Ctrl-C stops it and removes everything.\n");
        loop {
            tokio::select! {
                Some(arrival) = echo.arrivals.recv() => story::retell(&mut screen, &arrival),
                _ = signals.next() => break,
            }
        }
    }
    sidecar.stop().await;
    plane.stop().await;
    Ok(matches!(outcome, Some(Outcome::Arrived(_) | Outcome::Answered(_))))
}

/// Sends the one request and waits until the echo tells of it; `telling` says whether it can.
async fn ask(sidecar: SocketAddr, api_key: &str, secret: &str, telling: bool, echo: &mut Echo) -> Outcome {
    let asked = async {
        let request = Request::post(format!("http://{sidecar}{PATH}"))
            .header("content-type", "application/json")
            .header("x-portkey-api-key", api_key)
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
        Err(_) => TcpListener::bind(ANY_PORT).await,
    }
}

/// `port` of the loopback address, or any port of it when that is taken.
async fn free(port: u16) -> io::Result<SocketAddr> {
    let address = bind(port).await?.local_addr()?;
    Ok(if address.port() == port { address } else { ANY_PORT })
}

/// A credential that opens nothing.
fn draw_secret() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(format!("sk-dev-{:032x}", u128::from_ne_bytes(bytes)))
}
