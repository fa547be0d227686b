//! A real kube-apiserver with etcd behind it: ServiceAccounts, tokens and TokenReview are real, pods never run.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use http::Method;
use serde_json::{Value, json};

use super::{OpenBao, free_address, installed};
use crate::{
    authority::Authority,
    client::{Call, Reply},
    harness,
    process::{Process, command},
};

/// The bearer token of the cluster's administrator.
const ADMIN_TOKEN: &str = "admin-token";

/// The audience that the role of [`KubeApiserver::admit`] asks of a token.
pub const AUDIENCE: &str = "vault";

/// A running API server.
pub struct KubeApiserver {
    pub address: SocketAddr,
    authority: Authority,
    apiserver: Process,
    _etcd: Process,
}

/// A token of a ServiceAccount, in a file as a pod finds it.
pub struct ServiceAccount {
    pub token_file: PathBuf,
    pub token: String,
}

impl KubeApiserver {
    /// Starts etcd and the API server, in about six seconds.
    pub async fn start() -> Self {
        let program = installed("kube-apiserver");
        let folder = harness::folder();
        let (address, client, peer) = (free_address(), free_address(), free_address());
        let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));

        let mut etcd = command("etcd");
        etcd.arg("--data-dir").arg(folder.join("etcd")).arg("--unsafe-no-fsync");
        etcd.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        etcd.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        etcd.args(["--initial-cluster", &format!("default={peer}")]);
        if !["/usr/bin/etcd", "/usr/local/bin/etcd"].iter().any(|path| std::path::Path::new(path).exists()) {
            harness::skip("etcd is not installed (Debian: etcd-server)");
        }
        let etcd = Process::start("etcd", etcd);

        let authority = Authority::new("Sidekey test cluster");
        let leaf = authority.issue(&["127.0.0.1", "localhost", "kubernetes.default.svc"]);
        let key = rcgen::KeyPair::generate().expect("a key");
        let file = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).expect("the test's folder is writable");
            path
        };
        let mut server = command(program);
        server.arg(format!("--etcd-servers={client}")).arg(format!("--secure-port={}", address.port()));
        server.args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--authorization-mode=RBAC"]);
        server.args(["--service-cluster-ip-range=10.0.0.0/24", "--disable-admission-plugins=ServiceAccount"]);
        server.arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local");
        server.arg("--service-account-signing-key-file").arg(file("sa.key", key.serialize_pem()));
        server.arg("--service-account-key-file").arg(file("sa.pub", key.public_key_pem()));
        server.arg("--tls-cert-file").arg(file("kube.crt", leaf.certificate_pem()));
        server.arg("--tls-private-key-file").arg(file("kube.key", leaf.key_pem()));
        let admin = format!("{ADMIN_TOKEN},admin,admin,\"system:masters\"\n");
        server.arg("--token-auth-file").arg(file("kube.tokens", admin));
        let mut apiserver = Process::start("kube-apiserver", server);
        apiserver.until("listening", async || tokio::net::TcpStream::connect(address).await.ok()).await;

        let mut cluster = Self { address, authority, apiserver, _etcd: etcd };
        // `/readyz` answers before the first namespace exists.
        let client = cluster.authority.client();
        cluster
            .apiserver
            .until("ready", async || {
                let reply = kube(address, client.clone(), Method::GET, "/api/v1/namespaces/default", &json!({})).await;
                reply.status.is_success().then_some(())
            })
            .await;
        cluster
    }

    /// A new ServiceAccount of the namespace `default` with a token for `audience`.
    pub async fn service_account(&self, name: &str, audience: &str) -> ServiceAccount {
        let accounts = "/api/v1/namespaces/default/serviceaccounts";
        self.create(accounts, json!({"metadata": {"name": name}})).await;
        let wanted = json!({"spec": {"audiences": [audience], "expirationSeconds": 3600}});
        let made = self.create(&format!("{accounts}/{name}/token"), wanted).await;
        let token = made["status"]["token"].as_str().expect("a token").to_owned();
        let token_file = harness::folder().join(format!("{name}.jwt"));
        fs::write(&token_file, &token).expect("the test's folder is writable");
        ServiceAccount { token_file, token }
    }

    /// Deletes a ServiceAccount; its tokens are refused about ten seconds later, when the server's cache forgets them.
    pub async fn delete_service_account(&self, name: &str) {
        self.call(Method::DELETE, &format!("/api/v1/namespaces/default/serviceaccounts/{name}"), &json!({})).await;
    }

    /// Lets `bao` log in ServiceAccounts of this cluster: the role `role` is for the account `name` and has the policy
    /// `sidekey`. Gives the `auth_config` of a reference that logs in with it.
    pub async fn admit(&self, bao: &OpenBao, role: &str, name: &str) -> Value {
        let reviewer = format!("{role}-reviewer");
        let binding = json!({
            "metadata": {"name": reviewer},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
            "subjects": [{"kind": "ServiceAccount", "name": reviewer, "namespace": "default"}],
        });
        self.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
        let issuer = "https://kubernetes.default.svc.cluster.local";
        let reviewer = self.service_account(&reviewer, issuer).await;
        bao.write("sys/auth/kubernetes", json!({"type": "kubernetes"})).await;
        let config = json!({
            "kubernetes_host": format!("https://{}", self.address),
            "kubernetes_ca_cert": self.authority.certificate_pem(),
            "token_reviewer_jwt": reviewer.token,
            "disable_local_ca_jwt": true,
        });
        bao.write("auth/kubernetes/config", config).await;
        let bound = json!({
            "bound_service_account_names": name,
            "bound_service_account_namespaces": "default",
            "audience": AUDIENCE,
            "token_policies": "sidekey",
            "token_ttl": "60s",
        });
        bao.write(&format!("auth/kubernetes/role/{role}"), bound).await;
        json!({"vault_auth_type": "kubernetes", "vault_addr": bao.url(), "vault_role": role})
    }

    async fn create(&self, path: &str, body: Value) -> Value {
        let reply = self.call(Method::POST, path, &body).await;
        assert!(reply.status.is_success(), "{path}: {} {}", reply.status, reply.text());
        reply.json()
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Reply {
        kube(self.address, self.authority.client(), method, path, body).await
    }
}

async fn kube(to: SocketAddr, trust: Arc<rustls::ClientConfig>, method: Method, path: &str, body: &Value) -> Reply {
    let call = Call::new(method, path).header("authorization", format!("Bearer {ADMIN_TOKEN}")).json(body);
    call.send_tls(to, "localhost", trust).await
}
