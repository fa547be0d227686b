//! The system's resolver, shared fairly between the zones whose names are looked up.
//!
//! A look-up occupies a thread for as long as the name server pleases, and tenants choose the names: whoever names hosts of
//! a zone whose servers are dead must not keep others from theirs. So one name is looked up once for all who wait for it, and
//! a zone gets only a share of what is free ([`turns`]).

mod turns;

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, ToSocketAddrs as _},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};

use self::turns::Turns;

/// System look-ups under way at once.
const MAX_LOOKUPS: usize = 64;

/// Turns a name into its addresses. The system's resolver in production, a script in tests.
#[async_trait]
pub trait Lookup: fmt::Debug + Send + Sync {
    /// All addresses of `host`, in the order to try them.
    ///
    /// # Errors
    /// Whatever the resolver says.
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver, on threads of its own, [`MAX_LOOKUPS`] at once.
pub struct SystemLookup {
    turns: Arc<Turns>,
    flights: Mutex<HashMap<Box<str>, WeakShared<Flight>>>,
    search: Search,
}

type Search = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;
/// A look-up that is waited for. It ends when nobody waits for it any more, unless its thread has begun.
type Flight = BoxFuture<'static, Result<Arc<[IpAddr]>, Arc<io::Error>>>;

// === impl SystemLookup ===

impl SystemLookup {
    fn new(search: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self { turns: Arc::new(Turns::new(MAX_LOOKUPS)), flights: Mutex::default(), search: Arc::new(search) }
    }

    /// The look-up of `host`, joined or begun.
    fn flight(&self, host: &str) -> Shared<Flight> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has landed is of no use to who comes later: each connection is made to what a name means by then.
        let running = flights.get(host).and_then(WeakShared::upgrade).filter(|flight| flight.peek().is_none());
        if let Some(flight) = running {
            return flight;
        }
        let flight = search(Arc::clone(&self.turns), Arc::clone(&self.search), host.to_owned()).boxed().shared();
        if flights.len() == flights.capacity() {
            flights.retain(|_, flight| flight.upgrade().is_some());
        }
        if let Some(weak) = flight.downgrade() {
            flights.insert(host.into(), weak);
        }
        flight
    }
}

impl Default for SystemLookup {
    fn default() -> Self {
        Self::new(|host| Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }
}

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let found = self.flight(host).await;
        found.map(|addresses| addresses.to_vec()).map_err(|error| io::Error::new(error.kind(), error))
    }
}

impl fmt::Debug for SystemLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemLookup").field("turns", &self.turns).finish_non_exhaustive()
    }
}

async fn search(turns: Arc<Turns>, search: Search, host: String) -> Result<Arc<[IpAddr]>, Arc<io::Error>> {
    let turn = turns.turn(zone(&host)).await;
    let searching = tokio::task::spawn_blocking(move || {
        let found = search(&host);
        // Held until the system call returns, which may be long after whoever asked has left.
        drop(turn);
        found
    });
    searching.await.map_err(io::Error::other).flatten().map(Into::into).map_err(Arc::new)
}

/// Whose name servers `host` asks, as far as a name tells: its last two labels. Where those are not yet what somebody can own
/// (`co.uk`), all below share what others would have for themselves.
fn zone(host: &str) -> &str {
    let host = host.trim_end_matches('.');
    host.rmatch_indices('.').nth(1).map_or(host, |(dot, _)| &host[dot + 1..])
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Condvar,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use tokio::task::JoinSet;

    use super::*;

    /// Only a failing test waits this long.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// A resolver whose name servers of `….dead.test` do not answer until it is dropped.
    struct Net {
        lookup: Arc<SystemLookup>,
        asked: Arc<AtomicUsize>,
        gate: Arc<(Mutex<bool>, Condvar)>,
    }

    impl Net {
        fn new() -> Self {
            let (asked, gate) = (Arc::<AtomicUsize>::default(), Arc::<(Mutex<bool>, Condvar)>::default());
            let (counted, held) = (Arc::clone(&asked), Arc::clone(&gate));
            let lookup = SystemLookup::new(move |host| {
                counted.fetch_add(1, Ordering::SeqCst);
                if host.contains("dead") {
                    let open = held.1.wait_while(held.0.lock().unwrap(), |open| !*open);
                    drop(open);
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Ok(vec![[192, 0, 2, 1].into()])
            });
            Self { lookup: Arc::new(lookup), asked, gate }
        }

        /// Begins look-ups; they wait.
        fn begin(&self, hosts: impl Iterator<Item = String>) -> JoinSet<io::Result<Vec<IpAddr>>> {
            hosts.map(|host| (host, Arc::clone(&self.lookup))).fold(JoinSet::new(), |mut set, (host, lookup)| {
                set.spawn(async move { lookup.lookup(&host).await });
                set
            })
        }

        async fn until_asked(&self, times: usize) {
            let asked = async {
                while self.asked.load(Ordering::SeqCst) < times {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, asked).await.expect("they are looked up");
        }

        fn open(&self) {
            *self.gate.0.lock().unwrap() = true;
            self.gate.1.notify_all();
        }
    }

    impl Drop for Net {
        fn drop(&mut self) {
            // The runtime waits for its threads.
            self.open();
        }
    }

    #[tokio::test]
    async fn dead_name_servers_of_some_zones_do_not_keep_others_from_theirs() {
        let net = Net::new();
        let zones = ["dead-1.test", "dead-2.test", "dead-3.test", "dead.co.uk"];
        let hosts = zones.iter().flat_map(|zone| (0..500).map(move |n| format!("vault-{n}.{zone}")));
        let waiting = net.begin(hosts);
        net.until_asked(4).await;
        for host in ["vault.alive.test", "vault.team-b.alive.test", "vault"] {
            let found = tokio::time::timeout(PATIENCE, net.lookup.lookup(host)).await;
            assert_eq!(found.expect("its turn comes").unwrap().len(), 1, "{host}");
        }
        // Who gives up waiting leaves nothing behind.
        drop(waiting);
        net.open();
        for n in 0..200 {
            net.lookup.lookup(&format!("{n}.alive.test")).await.unwrap();
        }
        let flights = net.lookup.flights.lock().unwrap().len();
        assert!(flights <= 2 * 2000, "{flights} are remembered");
    }

    #[tokio::test]
    async fn one_name_is_looked_up_once_for_all_who_wait() {
        let net = Net::new();
        let mut waiting = net.begin((0..100).map(|_| "vault.dead.test".to_owned()));
        net.until_asked(1).await;
        assert!(waiting.try_join_next().is_none(), "nobody is answered yet");
        net.open();
        while let Some(answer) = waiting.join_next().await {
            assert_eq!(answer.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        assert_eq!(net.asked.load(Ordering::SeqCst), 1);
        // What was found is not kept.
        assert!(net.lookup.lookup("vault.dead.test").await.is_err());
        assert_eq!(net.asked.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_zone_is_the_end_of_a_name() {
        for (host, named) in [
            ("vault.team.example.com", "example.com"),
            ("example.com", "example.com"),
            ("a.example.com.", "example.com"),
            ("vault", "vault"),
            ("", ""),
        ] {
            assert_eq!(zone(host), named, "{host}");
        }
    }

    #[tokio::test]
    async fn the_system_resolves_localhost() {
        let addresses = SystemLookup::default().lookup("localhost").await.unwrap();
        assert!(addresses.iter().all(IpAddr::is_loopback) && !addresses.is_empty(), "{addresses:?}");
    }
}
