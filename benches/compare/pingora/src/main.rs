//! `pgproxy LISTEN UPSTREAM AUTHORIZATION`: sets one header on every request.

use async_trait::async_trait;
use pingora::prelude::*;

struct Proxy {
    upstream: String,
    authorization: String,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream.as_str(), false, String::new())))
    }

    async fn upstream_request_filter(&self, _: &mut Session, request: &mut RequestHeader, (): &mut ()) -> Result<()> {
        request.insert_header("Authorization", self.authorization.as_str())
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().unwrap_or_else(|| panic!("{what} is missing"));
    let (listen, upstream, authorization) = (next("LISTEN"), next("UPSTREAM"), next("AUTHORIZATION"));
    let mut server = Server::new(None).expect("no configuration file is read");
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Proxy { upstream, authorization });
    proxy.add_tcp(&listen);
    server.add_service(proxy);
    server.run_forever();
}
