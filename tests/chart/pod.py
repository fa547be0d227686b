"""What the rendered pod does when it runs: the real gateway and Sidekey, in the kubelet's order."""
import contextlib
import http.client
import http.server
import itertools
import json
import os
import random
import socket
import threading
import time

import yaml

from bench import ROOT, SIDEKEY, TEMPORARY, must, render_values, template
from kubelet import PROVIDER, Pod, node, until
from rendering import foreign, full_configuration

KEY = "sk-canary-5f1d0c7a"
TOKEN = "identity-canary-91b2"
MODELS = "http://models.test:9901/v1"
SNAPSHOT = {
    "schema_version": 1, "version": 1, "organisation_id": "acme",
    "secret_references": [{"id": "r1", "slug": "key", "manager_type": "file", "auth_config": {}, "secret_path": "openai", "status": "active"}],
    "virtual_keys": [{"id": "v1", "slug": "models", "provider": "openai", "status": "active", "model_config": {"customHost": MODELS},
                      "secret_mappings": [{"target_field": "key", "secret_reference_id": "key"}]}],
}
VALUES = {
    "secrets": {"files": {"name": "provider-keys"}},
    "config": {"limits": {"drain_delay_secs": 3, "drain_secs": 20}},
    "identity": {"vault": {"enabled": True}},
    "gateway": {"trustedCustomHosts": ["models.test"]},
}
CONTENT = {"entities": {"snapshot.json": json.dumps(SNAPSHOT)}, "provider-keys": {"openai": KEY}, "tokens": lambda audience: f"{TOKEN} for {audience}"}
CHUNKS, PAUSE = 12, 0.25


class Models(http.server.BaseHTTPRequestHandler):
    """A model server that lets nobody in without the key; streams take three seconds."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["authorization"] != f"Bearer {KEY}":
            return self.answer(401, {"error": {"message": "who are you"}})
        if not body.get("stream"):
            return self.answer(200, {"id": "1", "object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": "pong"}}]})
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for number in range(CHUNKS):
            self.wfile.write(b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": f"token-{number} "}}]}).encode() + b"\n\n")
            time.sleep(PAUSE)
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def answer(self, status, value):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def models():
    node()
    server = http.server.ThreadingHTTPServer((PROVIDER, 9901), Models)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def objects(values=VALUES):
    status, output = render_values(values)
    assert status == 0, output
    return [one for one in yaml.safe_load_all(output) if one]


def chat(address, stream=False, timeout=60):
    """Status and text of one request on a connection of its own."""
    connection = http.client.HTTPConnection(address, 8900, timeout=timeout)
    body = json.dumps({"model": "@models/gpt-4o-mini", "stream": stream, "messages": [{"role": "user", "content": "ping"}]})
    try:
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def refused(address, port):
    try:
        socket.create_connection((address, port), timeout=3).close()
    except ConnectionRefusedError:
        return True
    return False


def test_serves_as_rendered():
    """Read-only, without capabilities, as a user of no name: the credential arrives, and the first answer is the model's."""
    with models(), contextlib.closing(Pod(objects(), CONTENT)) as pod:
        pod.start().until_ready()
        status, text = chat(pod.address)
        assert status == 200 and "pong" in text, f"{status} {text}\n{pod.logs()}"
        status, text = chat(pod.address, stream=True)
        assert status == 200 and text.count("token-") == CHUNKS and "[DONE]" in text
        for container in pod.sidecars + pod.containers:
            lines = dict(line.split(":\t", 1) for line in open(f"/proc/{container.pid}/status").read().splitlines() if ":\t" in line)
            assert lines["CapEff"] == lines["CapBnd"] == "0000000000000000" and lines["NoNewPrivs"] == "1" and lines["Uid"].split()[0] == "65532"
            assert lines["NSpid"].split()[-1] == "1", "the started program is process 1"


def test_runs_as_whatever_user_openshift_picks():
    with models(), contextlib.closing(Pod(objects({**VALUES, "openshift": True}), CONTENT)) as pod:
        pod.start().until_ready()
        assert chat(pod.address)[0] == 200, pod.logs()


def test_nobody_reaches_the_gateways_own_port():
    """From the node, from another pod's network, and inside by another address than loopback; without the file it listens."""
    with models(), contextlib.closing(Pod(objects(), CONTENT)) as pod:
        pod.start().until_ready()
        assert refused(pod.address, 8787) and not refused(pod.address, 8900)
        status, output = pod["gateway"].exec(["node", "-e", LOOK, pod.address])
        assert status == 0 and output.split() == ["127.0.0.1", "open", pod.address, "ECONNREFUSED"], output
        with contextlib.closing(http.client.HTTPConnection(pod.address, 8788, timeout=5)) as connection:
            connection.request("POST", "/v1/chat/completions", "{}")
            assert connection.getresponse().status == 503, "the health port knows one word"

    bare = objects()
    gateway = next(one for one in bare if one["kind"] == "Deployment")["spec"]["template"]["spec"]["initContainers"][0]
    gateway["env"] = [one for one in gateway["env"] if one["name"] != "NODE_OPTIONS"]
    with contextlib.closing(Pod(bare, CONTENT)) as pod:
        pod["gateway"].start()
        until("the bare gateway is reachable from outside", lambda: not refused(pod.address, 8787), dump=pod.logs)


LOOK = """for (const host of ["127.0.0.1", process.argv[1]]) await new Promise((done) => require("net").connect(8787, host)
  .on("connect", () => { console.log(host, "open"); done(); }).on("error", (e) => { console.log(host, e.code); done(); }));
process.exit(0)""".replace("for (", "(async () => { for (", 1).replace("process.exit(0)", "process.exit(0) })()")


def test_no_identity_is_readable_from_the_gateway():
    with models(), contextlib.closing(Pod(objects(), CONTENT)) as pod:
        pod.start().until_ready()
        assert holds(pod["sidekey"], TOKEN) and holds(pod["sidekey"], KEY), "the search finds what is there"
        assert not holds(pod["gateway"], TOKEN) and not holds(pod["gateway"], KEY)


def holds(container, text):
    """Whether a file below the container's root (but for the system's own) or its environment has `text`; as root, who may read all."""
    root = f"/proc/{container.pid}/root"
    for folder in ("etc", "var", "run", "tmp", "app/build", "image"):
        for path, _, names in os.walk(f"{root}/{folder}"):
            for name in names:
                if name != "sidekey" and os.path.isfile(f"{path}/{name}") and text.encode() in open(f"{path}/{name}", "rb").read():
                    return True
    return text.encode() in open(f"/proc/{container.pid}/environ", "rb").read()


class Load:
    """Clients of the Service while pods come and go. An endpoint that leaves is noticed `lag` seconds late, as kube-proxy does."""

    def __init__(self, pods, lag=1.0):
        self.endpoints, self.lag, self.results, self.over = list(pods), lag, [], threading.Event()
        self.threads = [threading.Thread(target=self.client, args=(stream,)) for stream in (False, False, False, True, True, True)]
        for thread in self.threads:
            thread.start()

    def client(self, stream):
        while not self.over.is_set():
            pod = random.choice(self.endpoints)
            try:
                status, text = chat(pod.address, stream)
                good = status == 200 and ("[DONE]" in text if stream else "pong" in text)
                self.results.append((stream, None if good else f"pod {pod.number}: {status} {text[-300:]}"))
            except (OSError, http.client.HTTPException) as error:
                self.results.append((stream, f"pod {pod.number}: {error!r}"))
            time.sleep(0.01)

    def leave(self, pod):
        threading.Timer(self.lag, lambda: self.endpoints.remove(pod)).start()

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join()
        failed = [error for _, error in self.results if error]
        plain, streams = (sum(1 for kind, _ in self.results if kind is wanted) for wanted in (False, True))
        return failed, plain, streams


def roll(rendered, content=CONTENT, outages=(), name=None):
    """Replaces two pods one by one under load, in the kubelet's order; every end of a pod. An outage is called with the pod
    that serves and the one that is to be started, and has started it when it returns."""
    pods = [Pod(rendered, content, name=name).start().until_ready() for _ in range(2)]
    load, ends = Load(pods), []
    try:
        time.sleep(1)  # streams are under way in both
        for old, outage in itertools.zip_longest(list(pods), outages):
            fresh = Pod(rendered, content, name=name)
            pods.append(fresh)
            outage(old, fresh) if outage else fresh.start()
            load.endpoints.append(fresh.until_ready())
            load.leave(old)
            ends.append(old.terminate())
    finally:
        failed, plain, streams = load.end()
        for pod in pods:
            pod.close()
    print(f"{plain} plain requests and {streams} streams, {len(failed)} failed")
    assert not failed, f"{len(failed)} of {plain + streams} failed: {failed[:5]}"
    assert plain > 20 and streams > 6, (plain, streams)
    return ends


def test_a_rolling_restart_fails_no_request():
    with models():
        for end in roll(objects()):
            assert end == {"sidekey": (0, True), "gateway": (0, True)}, f"each ends by itself, long before SIGKILL: {end}"


def test_a_rolling_restart_of_another_charts_pods_fails_no_request():
    """Gateway and Sidekey are told to stop at once; the hook makes the gateway outlive Sidekey."""
    values = TEMPORARY / "foreign.values.yaml"
    values.write_text(yaml.safe_dump({"sidekey": {key: one for key, one in VALUES.items()}}))
    status, output = template(values, chart=foreign(), release="acme")
    assert status == 0, output
    rendered = [one for one in yaml.safe_load_all(output) if one]
    gateway = next(one for one in rendered if one["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"][0]
    gateway["command"] = ["node", "build/start-server.js", "--port=8787", "--headless"]  # what acme/gateway:1 starts
    with models():
        for end in roll(rendered):
            assert end == {"sidekey": (0, True), "gateway": (0, True)}, end


def test_clients_in_another_charts_pod_connect_to_a_socket():
    """No port for clients: whoever has the volume of the socket is one."""
    values = TEMPORARY / "sockets.values.yaml"
    values.write_text(yaml.safe_dump({"sidekey": {
        **VALUES, "config": {**VALUES["config"], "allow_unauthenticated": False, "listen": "unix:/run/sidekey/clients.sock"},
        "extraVolumes": [{"name": "sockets", "emptyDir": {"medium": "Memory"}}], "extraVolumeMounts": [{"name": "sockets", "mountPath": "/run/sidekey"}]}}))
    status, output = template(values, chart=foreign(), release="acme")
    assert status == 0, output
    rendered = [one for one in yaml.safe_load_all(output) if one]
    gateway = next(one for one in rendered if one["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"][0]
    gateway["command"] = ["node", "build/start-server.js", "--port=8787", "--headless"]
    with models(), contextlib.closing(Pod(rendered, CONTENT)) as pod:
        pod.start().until_ready()
        status, output = pod["sidekey"].exec(["node", "-e", ASK])
        assert status == 0 and output.startswith("200") and "pong" in output, f"{output}\n{pod.logs()}"
        assert refused(pod.address, 8900)


ASK = """require("http").request({ socketPath: "/run/sidekey/clients.sock", method: "POST", path: "/v1/chat/completions",
  headers: { "content-type": "application/json" } }, (reply) => { console.log(reply.statusCode); reply.pipe(process.stdout); })
  .end(JSON.stringify({ model: "@models/gpt-4o-mini", messages: [{ role: "user", content: "ping" }] }))"""


def test_every_rendered_configuration_starts_sidekey():
    """Out of the ConfigMap, at the paths and with the files of the rendered mounts."""
    for case, changes in {
        "minimal": {"config": {**full_configuration(), "allow_unauthenticated": True}, "webhooks": {"enabled": True, "hmacSecret": {"name": "webhook-secrets", "key": "hmac"}, "tlsSecret": {"name": "certificate"}}},
        "ha": {}, "pod-identity": {}, "inline-dual": {}, "policies": {}, "webhooks": {},
        "everything": {"extraVolumes": [], "extraVolumeMounts": []}, "control-sqlite": {"controlPlane": {"enabled": False}, "snapshot": {"controlPlane": {"url": "https://control.test"}}},
    }.items():
        status, output = render_values(changes, base=case)
        assert status == 0, output
        with contextlib.closing(Pod([one for one in yaml.safe_load_all(output) if one], files())) as pod:
            sidekey = pod["sidekey"]
            sidekey.start()
            until(f"{case}: healthy or ended", lambda: sidekey.probe("livenessProbe") or sidekey.process.poll() is not None, dump=pod.logs)
            assert sidekey.process.poll() is None, f"{case}\n{pod.logs()}"


def files():
    """What the Secrets that the cases name would hold."""
    key, certificate = TEMPORARY / "tls.key", TEMPORARY / "tls.crt"
    if not certificate.exists():
        must("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-subj", "/CN=sidekey", "-days", "2",
             "-addext", "subjectAltName=DNS:sidekey")
    identity = TEMPORARY / "identity"
    if not identity.exists():
        must(SIDEKEY, "keygen", "--kind", "identity", "--out", identity)
    authority = {"ca.crt": certificate.read_text()}
    snapshot = json.dumps(SNAPSHOT)
    return {
        **CONTENT, "entities": {"snapshot.json": snapshot, "all.json": snapshot}, "hashes": {"api-key-hash": "k1 " + "A" * 43 + "=\n"},
        "operator": {"token": "0123456789abcdef0123456789abcdef"}, "fingerprints": {"key": "0123456789abcdef0123456789abcdef"},
        "certificate": {"tls.crt": certificate.read_text(), "tls.key": key.read_text()}, "client-authorities": authority, "private-authorities": authority,
        "sealing": {"identity": identity.read_text()}, "redis": {"url": "rediss://redis.test:6379/0"}, "alerts": {"secret": "0123456789abcdef"},
        "prices": {"prices.yaml": (ROOT / "config" / "prices.yaml").read_text()},
        "webhook-secrets": {source: "0123456789abcdef" for source in ("eventbridge", "doppler", "hmac")}, "feed-token": {"token": "0123456789abcdef0123456789abcdef"},
    }
