"""Rolling restarts while a secret manager, or the control plane, is away: the old pods serve, the new ones wait, nobody notices."""
import contextlib
import functools
import http.client
import json
import os
import signal
import subprocess
import time

import pod as running
from bench import CACHE, TEMPORARY, need
from cluster import vault
from control import DIGEST, TOKEN, Service, endpoint, entities
from kubelet import PROVIDER, SERVICE, Pod, until
from pod import CONTENT, VALUES, chat, models, objects, roll

# For how long a new pod is watched waiting. Longer than it takes to start, and than `cache.ttl_secs` below.
WAITING = 6


def readiness(pod):
    """Whether `pod` is ready, and what it says about that."""
    with contextlib.closing(http.client.HTTPConnection(pod.address, 8901, timeout=5)) as connection:
        connection.request("GET", "/readyz")
        reply = connection.getresponse()
        return reply.status == 200, json.loads(reply.read())


def waits(old, fresh, *reasons):
    """The fresh pod is alive and unready for these reasons, the old one ready, all the time."""
    until("no other reason is left", lambda: readiness(fresh)[1]["reasons"] == [*reasons], dump=fresh.logs)
    end = time.monotonic() + WAITING
    while time.monotonic() < end:
        ready, said = readiness(fresh)
        assert not ready and said["reasons"] == [*reasons], said
        assert fresh["sidekey"].probe("livenessProbe") and old.ready()
        time.sleep(0.2)


class OpenBao:
    """A manager that can stand still and come back with what it had. It forgets when it ends: it is written to before pods reach it."""

    INSIDE = ("127.0.0.1", 8201)

    def __init__(self):
        self.service = Service(PROVIDER, 8200)
        self.program, self.home = need(CACHE / "bao"), TEMPORARY / f"bao-{time.monotonic_ns()}"
        self.home.mkdir()
        self.start()

    def start(self):
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "server", "-dev", "-dev-no-store-token", "-dev-root-token-id=root", f"-dev-listen-address={self.INSIDE[0]}:{self.INSIDE[1]}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"HOME": str(self.home), "PATH": os.environ["PATH"]})
        until("the vault answers", lambda: vault("GET", "sys/health", at=self.INSIDE)[0] == 200, dump=(self.home / "log").read_text)
        vault("POST", "secret/data/openai", {"data": {"api_key": running.KEY}}, must_be=200, at=self.INSIDE)
        self.service.lead_to(self.INSIDE)

    @contextlib.contextmanager
    def frozen(self):
        self.process.send_signal(signal.SIGSTOP)
        yield
        self.process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def gone(self):
        self.close()
        yield
        self.start()

    def close(self):
        self.service.close()
        self.process.kill()
        self.process.wait()


def test_a_rolling_restart_without_the_manager_fails_no_request():
    """First OpenBao stands still, then it is gone. By the chart's defaults: nothing in these values says to wait."""
    rendered = objects({**VALUES, "config": {
        **VALUES["config"], "egress": {"allow_hosts": ["vault.test"]}, "cache": {"ttl_secs": 2}, "managers": {"timeout_secs": 1, "deadline_secs": 2}}})
    snapshot = json.loads(json.dumps(running.SNAPSHOT))
    snapshot["secret_references"][0].update({
        "manager_type": "hashicorp_vault", "secret_path": "secret/data/openai", "secret_key": "api_key",
        "auth_config": {"vault_auth_type": "token", "vault_addr": "http://vault.test:8200", "vault_token": "root"}})

    def during(outage, old, fresh):
        with outage():
            fresh.start()
            waits(old, fresh, "prewarming")
            ready, said = readiness(old)
            assert ready and said["degraded"]["first"][0]["serves"] == "stale", said

    with models(), contextlib.closing(OpenBao()) as bao:
        outages = [functools.partial(during, outage) for outage in (bao.frozen, bao.gone)]
        for end in roll(rendered, {**CONTENT, "entities": {"snapshot.json": json.dumps(snapshot)}}, outages):
            assert end == {"sidekey": (0, True), "gateway": (0, True)}, end


def test_a_rolling_restart_without_the_control_plane_fails_no_request():
    """A new pod has no snapshot and waits, a container that starts anew in its pod has the last good one, the old ones serve on."""
    claims = TEMPORARY / "claims-outage"
    rendered = objects({
        **VALUES, "snapshot": {"source": "controlPlane", "controlPlane": {"tokenSecret": {"name": "feed"}}},
        "controlPlane": {"enabled": True, "config": {"data_planes": [{"name": "pods", "token_sha256": DIGEST}]}}})
    content = {**CONTENT, "feed": {"token": TOKEN}}

    def control_plane():
        return Pod(rendered, {}, claims, name="sidekey-control-plane").start().until_ready()

    with contextlib.ExitStack() as stack:
        stack.enter_context(models())
        service = stack.enter_context(contextlib.closing(Service(SERVICE, 8902)))
        control = control_plane()
        stack.callback(lambda: control.close())
        entities(control.address, next(claims.rglob("bootstrap-key")).read_text().strip())
        service.lead_to(endpoint(control))
        restarted = stack.enter_context(contextlib.closing(Pod(rendered, content, name="sidekey"))).start().until_ready()

        def during(old, fresh):
            nonlocal control
            service.lead_to()
            assert control.terminate() == {"control-plane": (0, True)}
            fresh.start()
            restarted["sidekey"].restart()
            restarted.until_ready()
            assert readiness(restarted)[1]["snapshot"]["origin"] == "last_good"
            assert chat(restarted.address)[0] == 200, restarted.logs()
            waits(old, fresh, "no_snapshot", "prewarming")
            control = control_plane()
            service.lead_to(endpoint(control))

        for end in roll(rendered, content, [during], name="sidekey"):
            assert end == {"sidekey": (0, True), "gateway": (0, True)}, end
