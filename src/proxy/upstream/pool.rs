//! Connections to one gateway, each driven by the request that runs on it.
//!
//! A connection is no task of its own: the future that waits for a reply polls it, then the body of the reply does, then it
//! lies idle until the next request. So a request crosses no task and wakes nobody, and one that is dropped takes its
//! connection along, which is how a client that leaves cancels what it asked for. Two kinds of requests need a connection
//! that goes on by itself, and get a task: handshakes, and those answered before their body was taken whole (a client may
//! read nothing before it has sent everything).

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Request, Response, header::UPGRADE};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{Connection, SendRequest, handshake},
    },
};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use super::{
    connect::{ConnectError, Connector},
    reply::ReplyBody,
    writer::{Stuck, Writer},
};
use crate::proxy::body::RequestBody;

/// Node closes idle connections after 5 s; ours are given up before, or requests would be written into closed ones.
const IDLE: Duration = Duration::from_secs(4);
/// How often idle connections are looked through; with [`IDLE`] it stays below Node's 5 s.
const SWEEP: Duration = Duration::from_millis(500);
/// Idle connections kept; a burst opens more and they are closed afterwards.
const MAX_IDLE: usize = 512;
/// Connections being opened at once. A burst beyond it waits for one of these, or for one that becomes idle.
const MAX_OPENING: usize = 256;

/// The connections to one place.
#[derive(Debug)]
pub struct Pool {
    connector: Connector,
    idle: Mutex<Idle>,
    returned: Notify,
    opening: Semaphore,
}

/// Connections without a request, the one that was used last at the end.
#[derive(Debug, Default)]
struct Idle {
    links: VecDeque<(Box<Link>, Instant)>,
    /// Whether a task closes those that were idle for too long.
    swept: bool,
}

/// One connection and the way to give it a request.
#[derive(Debug)]
pub struct Link {
    sender: SendRequest<RequestBody>,
    /// `None` once it has ended.
    connection: Option<Connection<TokioIo<Writer>, RequestBody>>,
    stuck: Stuck,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// No connection.
    #[error("no connection to the gateway")]
    Connect(#[source] ConnectError),
    /// A connection that did not bring a reply.
    #[error("the connection to the gateway broke off")]
    Broken(#[source] hyper::Error),
}

// === impl Pool ===

impl Pool {
    /// No connection yet.
    pub fn new(connector: Connector) -> Self {
        Self { connector, idle: Mutex::default(), returned: Notify::new(), opening: Semaphore::new(MAX_OPENING) }
    }

    /// Sends `request` and waits for the head of the reply. What was never written because an idle connection had gone is
    /// sent on another one; nothing else is sent twice.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn exchange(
        self: &Arc<Self>,
        mut request: Request<RequestBody>,
    ) -> Result<Response<ReplyBody>, ExchangeError> {
        if request.headers().contains_key(UPGRADE) {
            return self.hand_over(request).await;
        }
        let upload = request.body().progress();
        loop {
            let (mut link, used) = match self.take() {
                Some(link) => (link, true),
                None => self.open().await?,
            };
            let (head, body) = match link.send(request).await {
                Ok(response) => response.into_parts(),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if used => {
                        request = unsent;
                        continue;
                    }
                    Some(_) | None => return Err(ExchangeError::Broken(error.into_error())),
                },
            };
            let taken = upload.is_none_or(|upload| upload.is_over() && !link.stuck.is_stuck());
            if !taken {
                link.detach();
                return Ok(Response::from_parts(head, ReplyBody::detached(body)));
            }
            let mut carried = Some((body, link));
            let reply = poll_fn(|cx| match carried.take() {
                Some((body, link)) => Poll::Ready(ReplyBody::begin(body, link, self, cx)),
                None => Poll::Pending,
            });
            return Ok(Response::from_parts(head, reply.await));
        }
    }

    /// Takes back a connection whose reply has ended.
    pub fn put(self: &Arc<Self>, link: Box<Link>) {
        let mut idle = self.idle();
        if idle.links.len() >= MAX_IDLE {
            // The oldest is the most likely to be closed at the other end.
            idle.links.pop_front();
        }
        idle.links.push_back((link, Instant::now()));
        if !std::mem::replace(&mut idle.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
        drop(idle);
        self.returned.notify_one();
    }

    /// A handshake: the connection becomes the session's and is never shared.
    async fn hand_over(&self, request: Request<RequestBody>) -> Result<Response<ReplyBody>, ExchangeError> {
        let Link { mut sender, connection, .. } = *self.connect().await?;
        if let Some(connection) = connection {
            tokio::spawn(connection.with_upgrades());
        }
        let response = sender.send_request(request).await.map_err(ExchangeError::Broken)?;
        Ok(response.map(ReplyBody::detached))
    }

    /// A connection that was idle, or a new one, whichever comes first; and whether it was used before.
    async fn open(&self) -> Result<(Box<Link>, bool), ExchangeError> {
        let mut connecting = pin!(async {
            // A gateway that is gone must not be waited for in turns.
            let limit = self.connector.timeout();
            let place = tokio::time::timeout(limit, self.opening.acquire()).await;
            let _place = place.map_err(|_| ExchangeError::Connect(ConnectError::Timeout(limit)))?;
            self.connect().await
        });
        loop {
            tokio::select! {
                biased;
                connected = connecting.as_mut() => return Ok((connected?, false)),
                () = self.returned.notified() => {
                    if let Some(link) = self.take() {
                        return Ok((link, true));
                    }
                }
            }
        }
    }

    async fn connect(&self) -> Result<Box<Link>, ExchangeError> {
        let stream = self.connector.connect().await.map_err(ExchangeError::Connect)?;
        let (stream, stuck) = Writer::new(stream);
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(ExchangeError::Broken)?;
        Ok(Box::new(Link { sender, connection: Some(connection), stuck }))
    }

    /// The connection that was used last and still stands.
    fn take(&self) -> Option<Box<Link>> {
        loop {
            let (mut link, since) = self.idle().links.pop_back()?;
            if since.elapsed() < IDLE && link.is_idle(&mut Context::from_waker(Waker::noop())) {
                return Some(link);
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Link ===

impl Link {
    /// Whether it stands and can take a request.
    pub fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx);
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Moves the connection on. What ends it is told by the reply it carried.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && Pin::new(connection).poll(cx).is_ready()
        {
            // Dropped, so that whoever waits for something from it hears that nothing comes.
            self.connection = None;
        }
    }

    async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        let mut reply = pin!(self.sender.try_send_request(request));
        let connection = &mut self.connection;
        poll_fn(|cx| {
            if let Some(running) = connection
                && Pin::new(running).poll(cx).is_ready()
            {
                *connection = None;
            }
            reply.as_mut().poll(cx)
        })
        .await
    }

    /// Lets the connection go on by itself, to its end.
    fn detach(mut self: Box<Self>) {
        if let Some(connection) = self.connection.take() {
            tokio::spawn(connection);
        }
    }
}

/// Closes what was idle for too long, until nothing is idle.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle();
        let fresh = idle.links.partition_point(|(_, since)| since.elapsed() >= IDLE);
        let gone: Vec<_> = idle.links.drain(..fresh).collect();
        if idle.links.is_empty() {
            idle.swept = false;
        }
        let done = !idle.swept;
        drop(idle);
        // Closing is a system call each; not under the lock.
        drop(gone);
        if done {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
