//! The proxy: from an accepted connection to a reply. [`Proxy::handle`] is the product on one page.
//!
//! ```text
//! server      accepts, sheds, drains        connection   TLS, HTTP/1.1 or 2, head and idle times
//! handle      snapshot → route → authenticate → peek → plan → admit → resolve → apply → send → recover → redact
//! upstream    pooled HTTP/1.1               websocket    a planned handshake, then bytes
//! peek, body  streams, unbuffered           redact       injected values out of replies
//! recovery    a refused credential is looked after, and the request sent again
//! reject      the only table of errors      access       the only line about a request
//! audit       who used which credential     bill     what an answer has used, and who is charged
//! ```

mod access;
mod activity;
pub mod audit;
mod bill;
mod body;
mod connection;
mod heartbeat;
mod hop;
mod peek;
mod recovery;
mod redact;
mod reject;
mod server;
mod settings;
mod shutdown;
mod socket;
mod stream;
mod tls;
mod turn;
mod upstream;
mod waiting;
mod websocket;

pub use self::{
    body::{RequestBody, ResponseBody},
    heartbeat::Heartbeat,
    reject::{Code, Refusal},
    server::{BindError, Server},
    settings::{Limits, RecoverySettings, Settings, TlsSettings, UpstreamSettings},
    shutdown::{Shutdown, Stage},
    socket::Address,
    tls::{Chain, POLL as TLS_POLL, Reloaded, TlsError},
    upstream::{SendError, Upstream, UpstreamError},
};

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;
use http::{HeaderName, Request, Response, StatusCode, header::ACCEPT_ENCODING, request::Parts};
use hyper::body::{Body as _, Incoming};
use time::OffsetDateTime;

use self::{
    access::Access,
    activity::InFlight,
    audit::Audit,
    bill::Bill,
    peek::{Budget, Peeked},
    recovery::{Keeping, Reply, Spare},
    redact::Redactor,
    waiting::Waiting,
    websocket::{Handshake, Sessions},
};
use crate::{
    clients::{Admission, Client, Clients},
    dialect::{
        PlanError,
        portkey::{BodyPeek, PeekKind, Plan, Portkey, Route},
    },
    feed::Feed,
    metric::Metrics,
    model::{Entity, Snapshot},
    resolve::{Resolver, SlotStatus, Uses},
    secret::Credential,
    trace::Tracer,
};

/// Where the credentials of a request come from, when the operator lets clients know.
const PROVENANCE: HeaderName = HeaderName::from_static("x-sidekey-provenance");

/// Everything a request needs; one for the process.
#[derive(Debug)]
pub struct Proxy {
    feed: Arc<Feed>,
    dialect: Portkey,
    resolver: Arc<Resolver>,
    upstream: Upstream,
    control_plane: Option<Upstream>,
    clients: Arc<Clients>,
    limits: Limits,
    peeked: Budget,
    waiting: Waiting,
    keeping: Option<Keeping>,
    sessions: Sessions,
    metrics: Arc<Metrics>,
    audit: Option<Audit>,
    tracer: Option<Arc<Tracer>>,
    provenance: bool,
}

// === impl Proxy ===

impl Proxy {
    /// A proxy by `settings`. Nothing is connected yet.
    ///
    /// # Errors
    /// [`UpstreamError`] when the gateway or the control plane is not configured in a usable way.
    pub fn new(
        settings: &Settings,
        feed: Arc<Feed>,
        dialect: Portkey,
        resolver: Arc<Resolver>,
        clients: Arc<Clients>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, UpstreamError> {
        Ok(Self {
            feed,
            dialect,
            resolver,
            upstream: Upstream::new(&settings.upstream)?.patient(settings.limits.stall_timeout),
            control_plane: settings.control_plane.as_ref().map(Upstream::new).transpose()?,
            clients,
            limits: settings.limits,
            peeked: Budget::default(),
            waiting: Waiting::new(settings.limits.max_in_flight),
            keeping: settings.recovery.map(|kept| Keeping::new(kept.max_body_bytes, kept.max_kept_bytes)),
            sessions: Sessions::new(settings.limits.session_max, settings.limits.stall_timeout),
            metrics,
            audit: None,
            tracer: None,
            provenance: settings.provenance,
        })
    }

    /// Has each use of a credential recorded.
    #[must_use]
    pub fn audited(self, audit: Audit) -> Self {
        Self { audit: Some(audit), ..self }
    }

    /// Has requests followed.
    #[must_use]
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer: Some(Arc::new(tracer)), ..self }
    }

    /// Asks the gateway for a sign of life; any answer is one.
    ///
    /// # Errors
    /// [`SendError`] when there is none.
    pub async fn probe(&self) -> Result<(), SendError> {
        let (head, ()) = Request::new(()).into_parts();
        self.upstream.send(head, RequestBody::empty()).await.map(drop)
    }

    /// What is remembered for each reference of `snapshot`, in its order. Never a value.
    pub fn slots(&self, snapshot: &Snapshot) -> Vec<SlotStatus> {
        self.resolver.slots(snapshot, &Uses::default())
    }

    /// Answers a request, in any case. The line about it and its count are written here.
    async fn serve(self: Arc<Self>, request: Request<Incoming>, in_flight: InFlight) -> Response<ResponseBody> {
        let mut access = Access::begin(Some(&request), &self.metrics, self.audit.as_ref());
        access.trace(self.tracer.as_ref(), request.headers());
        let mut in_flight = Some(in_flight);
        // A panic must not take the other requests of the connection with it.
        let answered = AssertUnwindSafe(self.handle(request, &mut access, &mut in_flight)).catch_unwind().await;
        let mut response = answered.unwrap_or(Err(Refusal::Internal)).unwrap_or_else(|refusal| {
            access.refused(&refusal);
            refusal.respond(access.request_id)
        });
        if self.provenance {
            response.headers_mut().remove(PROVENANCE);
            response.headers_mut().extend(access.provenance().map(|list| (PROVENANCE, list)));
        }
        access.finish(response.status());
        response.map(|body| body.counted(in_flight))
    }

    /// The life of a request. Every step that can refuse returns why; nothing was sent then, or the answer is not passed on.
    async fn handle(
        &self,
        mut request: Request<Incoming>,
        access: &mut Access,
        in_flight: &mut Option<InFlight>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let handshake = Handshake::take(&mut request);
        let (mut head, body) = request.into_parts();
        self.check_head(&head)?;
        if handshake.is_some() && !body.is_end_stream() {
            // The gateway would take it for the first frames.
            return Err(PlanError::InvalidBody { reason: "a WebSocket handshake has none".to_owned() }.into());
        }
        hop::strip_request(&mut head.headers);
        access.propagate(&mut head.headers);

        let snapshot = self.feed.current().ok_or(Refusal::NoSnapshot)?;
        if self.dialect.route(&head)? == Route::Admin {
            access.admin();
            return self.forward_admin(head, body).await;
        }
        let client = self.clients.authenticate(&mut head, &snapshot)?;
        access.client(&client);
        let kind = self.dialect.peek_kind(&head);
        let Limits { model_peek_bytes, head_timeout, .. } = self.limits;
        let (peek, body) = Peeked::read(body, &kind, model_peek_bytes, head_timeout, &self.peeked).await?;
        let request = (&head, &peek);
        let (plan, admission) = self.admit(request, &client, &snapshot, handshake.is_some(), access).await?;
        let quota = admission.quota;
        let resolved = self.waiting.bound(&plan.mappings, self.resolver.resolve(&plan.mappings)).await?;
        access.resolved(&resolved);
        let credentials: Vec<Arc<Credential>> = resolved.into_iter().map(|resolved| resolved.credential).collect();
        let mut body = body.into_body(plan.body_edit.as_ref());
        let keeping = self.keeping.as_ref().filter(|_| !plan.mappings.is_empty());
        let spare = keeping.map(|keeping| Spare::of(&head, &mut body, keeping, handshake.is_some()));
        let redactor = self.inject(&plan, &credentials, &mut head)?;
        if let Some(handshake) = &handshake {
            handshake.write(&mut head);
        }
        access.used(&plan, &head);
        access.sending();

        let sent = body.progress().filter(|_| matches!(kind, PeekKind::Json));
        let mut bill = Bill::open(&self.clients, admission, peek.model.as_ref().map(|model| &*model.value), sent);
        if bill.is_some() {
            // So that the answer can be read along with.
            head.headers.remove(ACCEPT_ENCODING);
        }
        let method = head.method.clone();
        let response = match self.upstream.send(head, body).await {
            Ok(response) => response,
            Err(error) => {
                // What took too long to answer may have been worked on.
                if let Some(bill) = bill
                    && !matches!(error, SendError::Timeout(_))
                {
                    bill.void();
                }
                return Err(error.into());
            }
        };
        let mut reply = Reply { response, redactor };
        if let Some(spare) = spare {
            reply = self.recover(&plan, credentials, spare, reply, access).await;
        }
        access.answered();
        let Reply { mut response, redactor } = reply;
        if let Some(bill) = &mut bill {
            let used = self.dialect.used(&plan, response.headers());
            bill.answered(response.status(), response.headers(), used.as_deref());
        }
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(handshake)) = (response.status(), handshake) {
            if let Some(redactor) = redactor {
                redactor.headers(response.headers_mut());
            }
            return Ok(handshake.accept(response, &self.sessions, access.request_id, in_flight.take()));
        }
        hop::strip_response(response.headers_mut());
        quota.write(response.headers_mut());
        let response = match redactor {
            Some(redactor) => {
                redactor.reply(&method, response, access.request_id).await.map_err(Refusal::ReplyBroken)?
            }
            None => response.map(|body| ResponseBody::stream(body, None)),
        };
        Ok(response.map(|body| body.billed(bill)))
    }

    /// A plan for the request, and its admission. Targets of a config that have no room are left out where others stand in.
    async fn admit(
        &self,
        (head, peek): (&Parts, &BodyPeek),
        client: &Client,
        snapshot: &Snapshot,
        session: bool,
        access: &mut Access,
    ) -> Result<(Plan, Admission), Refusal> {
        let mut full: Vec<(Arc<Entity>, u16)> = Vec::new();
        loop {
            let now = OffsetDateTime::now_utc();
            let plan = self.dialect.plan_without(head, peek, snapshot, &client.caller, now, &full)?;
            access.planned(&plan);
            let denied = match self.clients.admit(client, &plan.entities, snapshot, session).await {
                Ok(admission) => return Ok((plan, admission)),
                Err(denied) => denied,
            };
            let account = denied.full();
            let is_full = |entity: &&Arc<Entity>| {
                let own = entity.account.as_ref();
                own.zip(account).is_some_and(|(own, full)| Arc::ptr_eq(own, full))
            };
            let found = plan.entities.iter().find(is_full).cloned();
            match found.filter(|found| !full.iter().any(|(known, _)| Arc::ptr_eq(known, found))) {
                Some(found) if plan.entities.len() > 1 => {
                    let refusal = Refusal::from(denied);
                    full.push((found, refusal.status().as_u16()));
                }
                Some(_) | None => return Err(denied.into()),
            }
        }
    }

    /// Puts credentials on the head of a request, and remembers them for the reply.
    fn inject(
        &self,
        plan: &Plan,
        credentials: &[Arc<Credential>],
        head: &mut Parts,
    ) -> Result<Option<Redactor>, Refusal> {
        let redactor = Redactor::new(self.dialect.apply(plan, credentials, head)?, &self.metrics.redactions);
        if redactor.is_some() {
            // So that an error can be searched. The gateway asks providers by itself.
            head.headers.remove(ACCEPT_ENCODING);
        }
        Ok(redactor)
    }

    /// Answers with `refusal`, whatever is asked; `None` when that never became known.
    fn refuse(&self, request: Option<&Request<Incoming>>, refusal: &Refusal) -> Response<ResponseBody> {
        let mut access = Access::begin(request, &self.metrics, None);
        access.refused(refusal);
        let response = refusal.respond(access.request_id);
        access.finish(response.status());
        response
    }

    /// All metrics of the process.
    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The WebSocket sessions that run.
    fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Looks for changed certificates and keys.
    fn refresh(&self) {
        self.clients.refresh(self.feed.current().as_deref());
        self.upstream.refresh();
        if let Some(control_plane) = &self.control_plane {
            control_plane.refresh();
        }
    }

    fn check_head(&self, head: &Parts) -> Result<(), Refusal> {
        let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let bytes = upstream::head_bytes(&head.method, target, &head.headers);
        let limit = self.limits.max_head_bytes;
        if bytes > limit { Err(Refusal::HeadTooLarge { bytes, limit }) } else { Ok(()) }
    }

    /// To the control plane: it has its own clients, keys and errors, and nothing of ours is injected.
    async fn forward_admin(&self, head: Parts, body: Incoming) -> Result<Response<ResponseBody>, Refusal> {
        let control_plane = self.control_plane.as_ref().ok_or(PlanError::NotFound)?;
        let mut response = control_plane.send(head, RequestBody::stream(body)).await?;
        hop::strip_response(response.headers_mut());
        Ok(response.map(|body| ResponseBody::stream(body, None)))
    }
}
