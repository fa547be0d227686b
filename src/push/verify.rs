//! One verifier for each source: who may deliver, and what a delivery that was verified says.
//!
//! What a head can prove is checked before the body is read; what signs the body is checked before the body is understood.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName};

use super::{
    PushError,
    bearer::{Bearer, Believed},
    event::{self, Grid, Malformed},
    settings::{EventBridge, Hmac, Settings, Synced},
    shared_secret::SharedSecrets,
    signature::{INFISICAL_TOLERANCE, Remembered, Stamped, is_doppler},
    target::Target,
};
use crate::egress::Transport;

/// Who delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An API destination of Amazon EventBridge.
    EventBridge,
    /// A webhook subscription of Azure Event Grid.
    EventGrid,
    /// A push subscription of Google Pub/Sub.
    Pubsub,
    /// A webhook of Doppler.
    Doppler,
    /// A webhook of Infisical.
    Infisical,
    /// Whoever knows the secret of our own scheme.
    Hmac,
}

/// The verifiers of every source that is configured.
#[derive(Debug, Default)]
pub struct Verifiers {
    eventbridge: Option<ByHead>,
    event_grid: Option<Bearer>,
    pubsub: Option<Bearer>,
    doppler: Option<(SharedSecrets, Vec<Target>)>,
    infisical: Option<(SharedSecrets, Vec<Target>, Remembered)>,
    hmac: Option<(SharedSecrets, Duration, Remembered)>,
}

/// What a verified delivery comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// This has changed.
    Changed(Vec<Target>),
    /// The code of a handshake, to be sent back.
    Validation(String),
    /// What was said before.
    Repeated,
}

/// Why a delivery is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not from whom it should be.
    Unverified,
    /// Whether it is cannot be told just now.
    Unverifiable,
    /// It is, and cannot be understood.
    Malformed,
}

#[derive(Debug)]
enum ByHead {
    Header(HeaderName, SharedSecrets),
    Token(Bearer),
}

// === impl Source ===

impl Source {
    /// Every source, in the order of the documentation.
    pub const ALL: [Self; 6] =
        [Self::EventBridge, Self::EventGrid, Self::Pubsub, Self::Doppler, Self::Infisical, Self::Hmac];

    /// The spelling of paths, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EventBridge => "eventbridge",
            Self::EventGrid => "event_grid",
            Self::Pubsub => "pubsub",
            Self::Doppler => "doppler",
            Self::Infisical => "infisical",
            Self::Hmac => "hmac",
        }
    }

    /// The source that delivers to `path`: `/v1/webhooks/<source>`.
    pub fn of_path(path: &str) -> Option<Self> {
        let name = path.strip_prefix("/v1/webhooks/")?;
        Self::ALL.into_iter().find(|source| source.as_str() == name)
    }

    /// Largest body, in bytes. Who is known before the body is read may send more of it, as much as the source ever does.
    pub const fn max_body(self) -> usize {
        match self {
            Self::EventBridge | Self::EventGrid | Self::Pubsub => 1 << 20,
            Self::Doppler | Self::Infisical | Self::Hmac => 64 << 10,
        }
    }
}

// === impl Verifiers ===

impl Verifiers {
    /// Reads every file that `settings` names. Blocks.
    ///
    /// # Errors
    /// [`PushError`].
    pub fn build(settings: &Settings, transport: &Arc<Transport>) -> Result<Self, PushError> {
        let found = |bearer: Option<Bearer>, source: Source| bearer.ok_or(PushError::Issuer(source.as_str()));
        let eventbridge = match &settings.eventbridge {
            None => None,
            Some(EventBridge::ApiKey { header, file }) => {
                Some(ByHead::Header(header.clone(), SharedSecrets::load(file.clone())?))
            }
            Some(EventBridge::OAuth { issuer, audience, keys_url }) => {
                let bearer = Bearer::oauth(issuer, audience, keys_url.clone(), Arc::clone(transport));
                Some(ByHead::Token(found(bearer, Source::EventBridge)?))
            }
        };
        let event_grid =
            settings.event_grid.as_ref().map(|settings| Bearer::event_grid(settings, Arc::clone(transport)));
        let pubsub = settings.pubsub.as_ref().map(|settings| Bearer::pubsub(settings, Arc::clone(transport)));
        let synced = |settings: &Synced| {
            let targets: Vec<_> = settings.references.iter().cloned().map(Target::Reference).collect();
            SharedSecrets::load(settings.file.clone()).map(|secrets| (secrets, targets))
        };
        let infisical = settings.infisical.as_ref().map(synced).transpose()?;
        let ours = |Hmac { file, tolerance }: &Hmac| {
            SharedSecrets::load(file.clone()).map(|secrets| (secrets, *tolerance, Remembered::default()))
        };
        Ok(Self {
            eventbridge,
            event_grid: event_grid.map(|bearer| found(bearer, Source::EventGrid)).transpose()?,
            pubsub: pubsub.map(|bearer| found(bearer, Source::Pubsub)).transpose()?,
            doppler: settings.doppler.as_ref().map(synced).transpose()?,
            infisical: infisical.map(|(secrets, targets)| (secrets, targets, Remembered::default())),
            hmac: settings.hmac.as_ref().map(ours).transpose()?,
        })
    }

    /// Whether deliveries of `source` are served at all.
    pub fn serves(&self, source: Source) -> bool {
        match source {
            Source::EventBridge => self.eventbridge.is_some(),
            Source::EventGrid => self.event_grid.is_some(),
            Source::Pubsub => self.pubsub.is_some(),
            Source::Doppler => self.doppler.is_some(),
            Source::Infisical => self.infisical.is_some(),
            Source::Hmac => self.hmac.is_some(),
        }
    }

    /// Looks for changed files. Blocks.
    pub fn refresh(&self) {
        if let Some(ByHead::Header(_, secrets)) = &self.eventbridge {
            secrets.refresh();
        }
        let synced = self.doppler.iter().map(|(secrets, _)| secrets);
        let synced = synced.chain(self.infisical.iter().map(|(secrets, _, _)| secrets));
        synced.chain(self.hmac.iter().map(|(secrets, _, _)| secrets)).for_each(SharedSecrets::refresh);
    }

    /// Checks what a head can prove. `now` is the time since 1970.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn check_head(&self, source: Source, headers: &HeaderMap, now: Duration) -> Result<(), Refused> {
        let bearer = match source {
            Source::EventBridge => match &self.eventbridge {
                Some(ByHead::Header(name, secrets)) => {
                    let presented = headers.get(name).is_some_and(|value| secrets.admits(value.as_bytes()));
                    return if presented { Ok(()) } else { Err(Refused::Unverified) };
                }
                Some(ByHead::Token(bearer)) => Some(bearer),
                None => None,
            },
            Source::EventGrid => self.event_grid.as_ref(),
            Source::Pubsub => self.pubsub.as_ref(),
            Source::Doppler | Source::Infisical | Source::Hmac => return Ok(()),
        };
        match bearer.ok_or(Refused::Unverified)?.believes(headers, now.as_secs_f64()).await {
            Believed::Yes => Ok(()),
            Believed::No => Err(Refused::Unverified),
            Believed::Unknown => Err(Refused::Unverifiable),
        }
    }

    /// Checks what signs `body`, and reads what it says. Call it after [`Verifiers::check_head`].
    ///
    /// # Errors
    /// [`Refused`].
    pub fn read(&self, source: Source, headers: &HeaderMap, body: &[u8], now: Duration) -> Result<Said, Refused> {
        match source {
            Source::EventBridge => Ok(Said::Changed(event::eventbridge(body)?)),
            Source::EventGrid => Ok(match event::event_grid(body)? {
                Grid::Events(targets) => Said::Changed(targets),
                Grid::Validation(code) => Said::Validation(code),
            }),
            Source::Pubsub => Ok(Said::Changed(event::pubsub(body)?)),
            Source::Doppler => {
                let (secrets, targets) = self.doppler.as_ref().ok_or(Refused::Unverified)?;
                if !is_doppler(headers, body, secrets) {
                    return Err(Refused::Unverified);
                }
                Ok(Said::Changed(targets.clone()))
            }
            Source::Infisical => {
                let (secrets, targets, remembered) = self.infisical.as_ref().ok_or(Refused::Unverified)?;
                let stamped = Stamped::infisical(headers).ok_or(Refused::Unverified)?;
                let at = stamped.number().filter(|at| is_near(Duration::from_millis(*at), now, INFISICAL_TOLERANCE));
                let at = at.filter(|_| secrets.signed(&[body], &stamped.signature)).ok_or(Refused::Unverified)?;
                // What is signed is the body; the time in the header counts for what the body says.
                let (said_at, changed) = event::infisical(body)?;
                if said_at != at {
                    return Err(Refused::Unverified);
                }
                let until = Duration::from_millis(at) + INFISICAL_TOLERANCE;
                if !remembered.is_first(stamped.signature, millis(now), millis(until)) {
                    return Ok(Said::Repeated);
                }
                Ok(Said::Changed(if changed { targets.clone() } else { Vec::new() }))
            }
            Source::Hmac => {
                let (secrets, tolerance, remembered) = self.hmac.as_ref().ok_or(Refused::Unverified)?;
                let stamped = Stamped::ours(headers).ok_or(Refused::Unverified)?;
                let at = stamped.number().map(Duration::from_secs).filter(|at| is_near(*at, now, *tolerance));
                let signed = secrets.signed(&[stamped.time.as_bytes(), b".", body], &stamped.signature);
                let at = at.filter(|_| signed).ok_or(Refused::Unverified)?;
                let targets = event::ours(body)?;
                if !remembered.is_first(stamped.signature, millis(now), millis(at + *tolerance)) {
                    return Ok(Said::Repeated);
                }
                Ok(Said::Changed(targets))
            }
        }
    }
}

// === impl Refused ===

impl From<Malformed> for Refused {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

fn is_near(at: Duration, now: Duration, tolerance: Duration) -> bool {
    at.abs_diff(now) <= tolerance
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
