//! Names to addresses, checked: one look-up for each connection, every address judged, and only those connected to.
//!
//! A name with one refused address is refused whole: an answer that mixes public and private addresses is an attack or a
//! mistake, and neither should depend on which address is tried first. `localhost` alone is known to be one machine.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{Lookup, Policy, Reach, Refused};

/// Addresses of one name that are looked at; more is nothing a secret manager needs.
const MAX_ADDRESSES: usize = 64;

/// A name could not be resolved.
#[derive(Debug, thiserror::Error)]
#[error("the host name cannot be resolved")]
pub struct ResolveError {
    #[source]
    source: Option<io::Error>,
}

/// What the HTTP client asks for addresses.
#[derive(Debug)]
pub(super) struct CheckedResolver {
    pub(super) policy: Arc<Policy>,
    pub(super) reach: Reach,
    pub(super) lookup: Arc<dyn Lookup>,
}

// === impl CheckedResolver ===

impl CheckedResolver {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let mut addresses = self.lookup.lookup(host).await.map_err(|source| ResolveError { source: Some(source) })?;
        addresses.truncate(MAX_ADDRESSES);
        if addresses.is_empty() {
            return Err(ResolveError { source: None }.into());
        }
        if self.policy.proxy_url().and_then(|proxy| proxy.host_str()) == Some(host) {
            return Ok(addresses);
        }
        let refused = addresses.iter().find_map(|address| self.check(host, *address).err());
        let Some(refused) = refused else { return Ok(addresses) };
        if is_localhost(host) {
            // Two addresses of one machine (RFC 6761): opening either is meant to be enough.
            addresses.retain(|address| self.check(host, *address).is_ok());
            if !addresses.is_empty() {
                return Ok(addresses);
            }
        }
        Err(refused.into())
    }

    fn check(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        match self.reach {
            Reach::Admitted => self.policy.check_address(host, address),
            Reach::Opened => self.policy.check_opened(host, address),
            Reach::Fixed => Ok(()),
        }
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let this = Self { policy: Arc::clone(&self.policy), reach: self.reach, lookup: Arc::clone(&self.lookup) };
        Box::pin(async move {
            let addresses = this.addresses(name.as_str()).await?;
            // Port 0 stands for the port of the URL.
            let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Mutex};

    use async_trait::async_trait;

    use super::*;
    use crate::egress::Settings;

    /// Answers from a list, one entry for each look-up.
    #[derive(Debug)]
    struct Script(Mutex<VecDeque<Vec<&'static str>>>);

    #[async_trait]
    impl Lookup for Script {
        async fn lookup(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            let answer = self.0.lock().unwrap().pop_front().ok_or(io::ErrorKind::NotFound)?;
            Ok(answer.into_iter().map(|address| address.parse().unwrap()).collect())
        }
    }

    fn resolver(reach: Reach, answers: &[&[&'static str]]) -> CheckedResolver {
        let settings = Settings { allow_cidrs: vec!["10.0.0.0/8".parse().unwrap()], ..Settings::default() };
        let script = Script(Mutex::new(answers.iter().map(|answer| answer.to_vec()).collect()));
        CheckedResolver { policy: Arc::new(Policy::new(settings)), reach, lookup: Arc::new(script) }
    }

    #[tokio::test]
    async fn a_name_that_turns_private_is_refused_from_then_on() {
        let resolver = resolver(Reach::Admitted, &[&["1.1.1.1"], &["192.168.0.1"], &["169.254.169.254"]]);
        assert_eq!(resolver.addresses("rebind.example").await.unwrap(), ["1.1.1.1".parse::<IpAddr>().unwrap()]);
        for address in ["192.168.0.1", "169.254.169.254"] {
            let error = resolver.addresses("rebind.example").await.unwrap_err();
            let refused = error.downcast_ref::<Refused>().expect("refused by the policy");
            assert!(refused.reason.contains(address), "{refused}");
        }
    }

    #[tokio::test]
    async fn every_address_of_an_answer_counts() {
        #[rustfmt::skip]
        let rows: [(Reach, &[&'static str], bool); 8] = [
            (Reach::Admitted, &["1.1.1.1", "10.0.0.1"], true),
            (Reach::Admitted, &["1.1.1.1", "192.168.0.1"], false),
            (Reach::Admitted, &["192.168.0.1", "1.1.1.1"], false),
            (Reach::Admitted, &["1.1.1.1", "::ffff:169.254.169.254"], false),
            (Reach::Admitted, &[], false),
            (Reach::Opened, &["10.0.0.1", "10.0.0.2"], true),
            (Reach::Opened, &["10.0.0.1", "1.1.1.1"], false),
            (Reach::Opened, &["1.1.1.1"], false),
        ];
        for (reach, answer, admitted) in rows {
            let outcome = resolver(reach, &[answer]).addresses("vault.example").await;
            assert_eq!(outcome.is_ok(), admitted, "{reach:?} {answer:?}");
        }
    }

    #[tokio::test]
    async fn localhost_is_reached_at_the_address_that_is_open() {
        let settings = Settings { allow_cidrs: vec!["127.0.0.0/8".parse().unwrap()], ..Settings::default() };
        let policy = Arc::new(Policy::new(settings));
        #[rustfmt::skip]
        let rows: [(&str, &[&'static str], &[&str]); 5] = [
            ("localhost", &["::1", "127.0.0.1"], &["127.0.0.1"]),
            ("vault.LOCALHOST.", &["127.0.0.1", "::1"], &["127.0.0.1"]),
            ("localhost", &["::1"], &[]),
            ("localhost", &["169.254.169.254", "::1"], &[]),
            ("vault.example", &["::1", "127.0.0.1"], &[]),
        ];
        for (host, answer, reached) in rows {
            let lookup = Arc::new(Script(Mutex::new(VecDeque::from([answer.to_vec()]))));
            let resolver = CheckedResolver { policy: Arc::clone(&policy), reach: Reach::Opened, lookup };
            let addresses = resolver.addresses(host).await.unwrap_or_default();
            assert_eq!(addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>(), reached, "{host} {answer:?}");
        }
    }
}
