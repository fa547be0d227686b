"""The chart against a real API server, and a login at a real Vault with a token that it issued.

kube-apiserver 1.20 is the newest that can be had here. It lacks native sidecars, policy/v1 and
autoscaling/v2: the gateway is a plain container here, the others are left out; the schemas of rendering.py alone hold them.
"""
import contextlib
import http.client
import json
import os
import shutil
import ssl
import subprocess
import time

import yaml

import pod as running
from bench import CACHE, CHART, HELMS, KUBECTL, TEMPORARY, must, need, render, render_values
from kubelet import PROVIDER, Pod, node, until
from rendering import NAMES

NAMESPACE = "gateways"
ISSUER = "https://kubernetes.default.svc.cluster.local"
LACKING = ("policy/v1", "autoscaling/v2", "monitoring.coreos.com/v1")


class Cluster:
    def __init__(self):
        node()
        program = need(CACHE / "kube-apiserver")
        etcd = need(shutil.which("etcd") or "/usr/bin/etcd")
        openssl = need(shutil.which("openssl") or "/usr/bin/openssl")
        self.folder = TEMPORARY / f"cluster-{time.monotonic_ns()}"
        self.folder.mkdir()
        self.started = []
        must(openssl, "genrsa", "-out", self.folder / "sa.key", "2048")
        (self.folder / "tokens").write_text('admin-token,admin,admin,"system:masters"\n')
        self.start("etcd", etcd, "--data-dir", self.folder / "etcd", "--unsafe-no-fsync", "--listen-client-urls", "http://127.0.0.1:2379",
                   "--advertise-client-urls", "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380")
        self.start("apiserver", program, "--etcd-servers=http://127.0.0.1:2379", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
                   "--secure-port=6443", f"--cert-dir={self.folder}/certificates", f"--token-auth-file={self.folder}/tokens", "--authorization-mode=RBAC",
                   f"--service-account-issuer={ISSUER}", f"--service-account-signing-key-file={self.folder}/sa.key",
                   f"--service-account-key-file={self.folder}/sa.key", "--service-cluster-ip-range=10.0.0.0/24", "--disable-admission-plugins=ServiceAccount")
        self.ca = self.folder / "certificates" / "apiserver.crt"
        until("the API server has namespaces", lambda: self.ca.exists() and self.call("GET", "/api/v1/namespaces/default")[0] == 200, seconds=90, dump=self.logs)
        self.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})

    def start(self, name, *command, env=None):
        log = (self.folder / f"{name}.log").open("wb")
        process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        self.started.append(process)
        return process

    def logs(self):
        return "".join(path.read_text()[-2000:] for path in self.folder.glob("*.log"))

    def call(self, method, path, body=None):
        connection = http.client.HTTPSConnection("127.0.0.1", 6443, timeout=10, context=ssl.create_default_context(cafile=self.ca))
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None,
                               {"authorization": "Bearer admin-token", "content-type": "application/json"})
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read() or b"{}")
        except (OSError, ValueError, http.client.HTTPException):
            return 0, {}
        finally:
            connection.close()

    def create(self, path, body):
        status, made = self.call("POST", path, body)
        assert status in (200, 201), f"{path}: {status} {made}"
        return made

    def token(self, account, audience, namespace=NAMESPACE):
        made = self.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", {"spec": {"audiences": [audience], "expirationSeconds": 3600}})
        return made["status"]["token"]

    def helm(self, version, *arguments):
        env = {**os.environ, "HOME": str(self.folder), "HELM_CACHE_HOME": str(self.folder / "helm")}
        return must(need(HELMS[version]), *arguments, "--namespace", NAMESPACE, "--kube-apiserver", "https://127.0.0.1:6443",
                    "--kube-token", "admin-token", "--kube-ca-file", self.ca, env=env)

    def kubectl(self, *arguments):
        return must(need(KUBECTL), "--server", "https://127.0.0.1:6443", "--token", "admin-token", "--certificate-authority", self.ca,
                    "--namespace", NAMESPACE, "--cache-dir", self.folder / "kubectl", *arguments)

    def get(self, path):
        status, found = self.call("GET", path)
        assert status == 200, f"{path}: {status} {found}"
        return found

    def close(self):
        for process in reversed(self.started):
            process.kill()
            process.wait()


def without_what_1_20_lacks(objects):
    kept = [one for one in objects if one["apiVersion"] not in LACKING]
    for one in kept:
        one["metadata"]["namespace"] = NAMESPACE
        if one["kind"] == "Deployment":
            pod = one["spec"]["template"]["spec"]
            for container in pod.pop("initContainers", []):
                container.pop("restartPolicy")
                pod["containers"].append(container)
    return kept


def old_chart():
    """The chart for 1.20: without its kubeVersion, and the gateway a plain container."""
    chart = TEMPORARY / "old-chart"
    shutil.copytree(CHART, chart, dirs_exist_ok=True)
    for name, there, instead in (
        ("Chart.yaml", 'kubeVersion: ">=1.29.0-0"\n', ""),
        ("templates/_gateway.tpl", "restartPolicy: Always\n", ""),
        ("templates/deployment.yaml", "      containers:\n", ""),
        ("templates/deployment.yaml", "      initContainers:\n", "      containers:\n"),
    ):
        path = chart / name
        text = path.read_text()
        assert text.count(there) == 1, there
        path.write_text(text.replace(there, instead))
    return chart


def test_a_real_api_server_takes_every_object():
    with contextlib.closing(Cluster()) as cluster:
        file = TEMPORARY / "apply.yaml"
        for case in NAMES:
            file.write_text(yaml.safe_dump_all(without_what_1_20_lacks(render(case))))
            cluster.kubectl("apply", "--server-side", "--dry-run=server", "-f", file)


def test_installs_upgrades_and_rolls_back():
    """A changed configuration makes new pods, a changed snapshot does not, and a rollback is the state before."""
    chart, deployment = old_chart(), f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/sidekey"
    inline = ["--values", CHART.parent / "tests/chart/cases/inline-dual.values.yaml", "--set", "ipv6=false,service.ipFamilyPolicy=,service.type=ClusterIP"]
    with contextlib.closing(Cluster()) as cluster:
        for version in HELMS:
            def template_of():
                return cluster.get(deployment)["spec"]["template"]

            cluster.helm(version, "install", "sidekey", chart, *inline)
            first, made = template_of(), cluster.get(deployment)["metadata"]["generation"]
            cluster.helm(version, "upgrade", "sidekey", chart, *inline)
            assert cluster.get(deployment)["metadata"]["generation"] == made, "the same values change nothing"
            cluster.helm(version, "upgrade", "sidekey", chart, *inline, "--set-json", 'snapshot.inline="{\\"schema_version\\": 1, \\"version\\": 2}"')
            assert template_of() == first, "a snapshot is read again, no pod is replaced"
            assert '"version": 2' in cluster.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/sidekey-snapshot")["data"]["snapshot.json"]
            cluster.helm(version, "upgrade", "sidekey", chart, *inline, "--set", "config.cache.ttl_secs=60")
            changed = template_of()
            assert changed != first and "ttl_secs: 60" in cluster.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/sidekey")["data"]["sidekey.yaml"]
            cluster.helm(version, "rollback", "sidekey", "1")
            assert template_of() == first, "a rollback is the state before"
            assert '"version": 1' in cluster.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/sidekey-snapshot")["data"]["snapshot.json"]
            cluster.helm(version, "uninstall", "sidekey")
            until("the deployment is gone", lambda: cluster.call("GET", deployment)[0] == 404)


def test_what_a_control_plane_keeps_outlives_its_release():
    """`helm uninstall` leaves the claim, and nothing else; an install under the same name takes it up again."""
    chart, claim = old_chart(), f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims/sidekey-control-plane"
    values = ["--set", "mode=none,controlPlane.enabled=true"]
    with contextlib.closing(Cluster()) as cluster:
        for version in HELMS:
            cluster.helm(version, "install", "sidekey", chart, *values)
            made = cluster.get(claim)["metadata"]["uid"]
            cluster.helm(version, "uninstall", "sidekey")
            until("the deployment is gone", lambda: cluster.call("GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/sidekey-control-plane")[0] == 404)
            kept = cluster.get(claim)["metadata"]
            assert kept["uid"] == made and "deletionTimestamp" not in kept
            left = [one["metadata"]["name"] for kind in ("services", "configmaps", "secrets") for one in cluster.get(f"/api/v1/namespaces/{NAMESPACE}/{kind}")["items"]]
            assert left == [], left


def test_the_service_account_logs_in_at_vault():
    """A token the API server issued for the chart's account and audience opens the secret, in the pod as rendered."""
    values = {
        "identity": {"vault": {"enabled": True, "audience": "vault.acme.example"}},
        "config": {"egress": {"allow_hosts": ["vault.test"]}},
        "gateway": {"trustedCustomHosts": ["models.test"]},
    }
    bao = need(CACHE / "bao")
    with contextlib.closing(Cluster()) as cluster, running.models():
        status, output = render_values(values)
        assert status == 0, output
        objects = [one for one in yaml.safe_load_all(output) if one]
        for name in [one["metadata"]["name"] for one in objects if one["kind"] == "ServiceAccount"] + ["reviewer"]:
            cluster.create(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": {"name": name}})
        cluster.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {
            "metadata": {"name": "reviewer"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
            "subjects": [{"kind": "ServiceAccount", "name": "reviewer", "namespace": NAMESPACE}]})
        cluster.start("openbao", bao, "server", "-dev", "-dev-no-store-token", "-dev-root-token-id=root", f"-dev-listen-address={PROVIDER}:8200",
                      env={"HOME": str(cluster.folder), "PATH": os.environ["PATH"]})
        until("the vault answers", lambda: vault("GET", "sys/health")[0] == 200, dump=cluster.logs)
        vault("POST", "secret/data/openai", {"data": {"api_key": running.KEY}}, must_be=200)
        vault("POST", "sys/policies/acl/sidekey", {"policy": 'path "secret/data/openai" { capabilities = ["read"] }'}, must_be=204)
        vault("POST", "sys/auth/kubernetes", {"type": "kubernetes"}, must_be=204)
        vault("POST", "auth/kubernetes/config", {"kubernetes_host": "https://127.0.0.1:6443", "kubernetes_ca_cert": cluster.ca.read_text(),
                                                 "token_reviewer_jwt": cluster.token("reviewer", ISSUER), "disable_local_ca_jwt": True}, must_be=204)
        vault("POST", "auth/kubernetes/role/sidekey", {"bound_service_account_names": "sidekey", "bound_service_account_namespaces": NAMESPACE,
                                                       "audience": "vault.acme.example", "token_policies": "sidekey", "token_ttl": "60s"}, must_be=204)
        snapshot = json.loads(json.dumps(running.SNAPSHOT))
        snapshot["secret_references"][0].update({
            "manager_type": "hashicorp_vault", "secret_path": "secret/data/openai", "secret_key": "api_key",
            "auth_config": {"vault_auth_type": "kubernetes", "vault_addr": "http://vault.test:8200", "vault_role": "sidekey"}})
        account = next(one for one in objects if one["kind"] == "Deployment")["spec"]["template"]["spec"]["serviceAccountName"]
        content = {"entities": {"snapshot.json": json.dumps(snapshot)}, "tokens": lambda audience: cluster.token(account, audience)}
        with contextlib.closing(Pod(objects, content)) as pod:
            pod.start().until_ready()
            status, text = running.chat(pod.address)
            assert status == 200 and "pong" in text, f"{status} {text}\n{pod.logs()}"


def vault(method, path, body=None, must_be=None, at=(PROVIDER, 8200)):
    connection = http.client.HTTPConnection(*at, timeout=10)
    try:
        connection.request(method, f"/v1/{path}", json.dumps(body) if body else None, {"x-vault-token": "root"})
        reply = connection.getresponse()
        text = reply.read().decode()
        assert must_be in (None, reply.status), f"{path}: {reply.status} {text}"
        return reply.status, text
    except OSError:
        return 0, ""
    finally:
        connection.close()
