//! What `sidekey dev` says: what runs, what was asked, what arrived, how to do it again.

use std::{net::SocketAddr, path::Path};

use http::StatusCode;
use url::Url;

use super::{
    super::{
        Screen,
        screen::{Tone, printable},
    },
    BODY, Outcome, PATH, REFERENCE, VIRTUAL_KEY,
    echo::Arrival,
    shorten::shorten,
};

/// What the echo is.
const ECHO: &str = "built in, answers with what it receives";

/// What runs where.
pub struct Cast<'a> {
    /// Where clients connect.
    pub sidecar: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
    /// The admin API, which the sidecar serves, too.
    pub control: SocketAddr,
    /// The gateway.
    pub gateway: &'a Url,
    /// What the built-in echo plays.
    pub echo: Role,
    /// Where the secret and what the control plane keeps lie.
    pub folder: &'a Path,
}

/// What the echo plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The gateway.
    Gateway,
    /// The provider behind a gateway on this machine.
    Provider(SocketAddr),
    /// Nothing: the gateway is elsewhere and would not find it.
    Nobody,
}

/// Names everything that runs.
pub fn introduce(screen: &mut Screen, cast: &Cast<'_>) {
    let gateway = cast.gateway.as_str().trim_end_matches('/');
    let mut rows = vec![
        ("sidecar", format!("http://{}", cast.sidecar), ""),
        ("admin", format!("http://{}", cast.admin), "/healthz /readyz /metrics"),
        ("control", format!("http://{}", cast.control), "the admin API, key in bootstrap-key"),
        ("gateway", gateway.to_owned(), if cast.echo == Role::Gateway { ECHO } else { "" }),
        ("state", cast.folder.display().to_string(), "private, removed at the end"),
    ];
    if let Role::Provider(address) = cast.echo {
        rows.insert(4, ("provider", format!("http://{address}"), ECHO));
    }
    let width = rows.iter().map(|(_, value, _)| value.chars().count()).max().unwrap_or(0);
    screen.line("");
    for (name, value, note) in rows {
        let line = format!(
            "  {}  {value:width$}  {}",
            screen.tint(Tone::Faint, format!("{name:8}")),
            screen.tint(Tone::Faint, note)
        );
        screen.line(line.trim_end());
    }
    screen.line("");
}

/// Tells what the client sent and what came of it.
pub fn report(screen: &mut Screen, cast: &Cast<'_>, outcome: &Outcome) {
    screen.line(format_args!("  A client named the virtual key {}:", screen.tint(Tone::Strong, VIRTUAL_KEY)));
    screen.line(format_args!(
        "\n    POST {PATH}\n    x-portkey-api-key: its own\n    x-portkey-provider: @{VIRTUAL_KEY}\n"
    ));
    match outcome {
        Outcome::Arrived(arrival) => {
            let receiver = if cast.echo == Role::Gateway { "gateway" } else { "provider" };
            screen.line(format_args!("  The {receiver} received:"));
            screen.line(format_args!("\n    {}", printable(&arrival.line)));
            for (name, value) in arrival.shortened() {
                let line = format!("{name}: {}", printable(&value));
                if name == "authorization" {
                    let note = screen.tint(Tone::Faint, format_args!("the secret behind reference {REFERENCE}"));
                    screen.line(format_args!("    {}  {note}", screen.tint(Tone::Strong, line)));
                } else {
                    screen.line(format_args!("    {line}"));
                }
            }
            let tick = screen.tint(Tone::Good, "✓");
            screen.line(format_args!("\n  {tick} The credential arrived. The client never had it.\n"));
        }
        Outcome::Answered(status) => answered(screen, *status),
        Outcome::Lost(reason) => {
            let cross = screen.tint(Tone::Bad, "✗");
            screen.line(format_args!("  {cross} {}\n", printable(reason)));
        }
    }
}

/// How to do it again.
pub fn invite(screen: &mut Screen, sidecar: SocketAddr, api_key: &str) {
    screen.line("  Repeat it while sidekey dev runs:\n");
    screen.line(format_args!("    curl http://{sidecar}{PATH} \\"));
    screen.line(format_args!("      -H 'x-portkey-api-key: {api_key}' \\"));
    screen.line(format_args!("      -H 'content-type: application/json' -H 'x-portkey-provider: @{VIRTUAL_KEY}' \\"));
    screen.line(format_args!("      -d '{BODY}'\n"));
}

/// One line about a later request.
pub fn retell(screen: &mut Screen, arrival: &Arrival) {
    let credential =
        arrival.header("authorization").map_or("no credential".to_owned(), |value| shorten("authorization", value));
    let line = format!("  {}  {}", printable(&arrival.line), printable(&credential));
    screen.line(screen.tint(Tone::Faint, line));
}

fn answered(screen: &mut Screen, status: StatusCode) {
    let tick = screen.tint(Tone::Good, "✓");
    screen.line(format_args!("  {tick} The gateway received it with the credential, and answered {status}.\n"));
    if !status.is_success() {
        screen.line("    The credential is an invented one, so that a provider refuses it.\n");
    }
}
