"""The control plane as rendered: what it keeps on its claim, and several of it on PostgreSQL, rolled under load."""
import contextlib
import hashlib
import http.client
import json
import pathlib
import random
import socket
import subprocess
import threading
import urllib.parse

import pod as running
from bench import ROOT, SIDEKEY, TEMPORARY, Skip, must
from kubelet import PROVIDER, SERVICE, Pod, node
from pod import objects

OWNER = "sk-sidekey-owner-key-of-these-tests"
TOKEN = "dp-sidekey-of-these-tests"
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()


class Service:
    """What kube-proxy makes of a Service: connections to its address reach one of its endpoints (host, port), or are refused."""

    def __init__(self, address, port):
        node()
        self.address, self.endpoints, self.listener = (address, port), [], None

    def lead_to(self, *endpoints):
        self.endpoints = list(endpoints)
        if endpoints and not self.listener:
            self.listener = socket.create_server(self.address, backlog=128)
            threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()
        elif not endpoints and self.listener:
            # close() alone would leave the blocked accept() listening.
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None
        return self

    def accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self.connect, args=(client,), daemon=True).start()

    def connect(self, client):
        with client, contextlib.suppress(OSError), socket.create_connection(random.choice(self.endpoints)) as server:
            back = threading.Thread(target=pump, args=(server, client), daemon=True)
            back.start()
            pump(client, server)
            back.join()

    def close(self):
        self.lead_to()


def pump(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def endpoint(pod):
    return pod.address, 8902


def call(address, key, method, path, body=None):
    connection = http.client.HTTPConnection(address, 8902, timeout=10)
    try:
        connection.request(method, path, json.dumps(body) if body else None, {"x-portkey-api-key": key, "content-type": "application/json"})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def entities(address, owner):
    """By the admin API: a reference to a file, and a virtual key that it opens."""
    for path, body in (
        ("secret-references", {"name": "Key", "slug": "key", "manager_type": "file", "auth_config": {}, "secret_path": "openai"}),
        ("integrations", {"name": "Models", "slug": "models-main", "ai_provider_id": "openai", "configurations": {"custom_host": running.MODELS},
                          "secret_mappings": [{"target_field": "key", "secret_reference_id": "key"}]}),
        ("providers", {"name": "Models", "slug": "models", "integration_id": "models-main"}),
    ):
        status, said = call(address, owner, "POST", f"/v1/{path}", body)
        assert status == 200, f"{path}: {status} {said}"


def test_the_control_plane_keeps_what_it_is_told():
    """Its OWNER key is on the claim, not in an object or the log; what is written outlives the pod."""
    rendered = objects({"mode": "none", "snapshot": {"source": "none"}, "controlPlane": {"enabled": True}})
    claims = TEMPORARY / "claims"
    body = {"name": "Key", "manager_type": "aws_sm", "auth_config": {"aws_auth_type": "serviceRole", "aws_region": "eu-west-1"}, "secret_path": "a"}
    with contextlib.closing(Pod(rendered, {}, claims)) as pod:
        pod.start().until_ready()
        owner = next(claims.rglob("bootstrap-key")).read_text().strip()
        assert owner and owner not in pod.logs() and owner not in str(rendered)
        status, made = call(pod.address, owner, "POST", "/v1/secret-references", body)
        assert status == 200, f"{status} {made}\n{pod.logs()}"
        assert pod.terminate() == {"control-plane": (0, True)}
    with contextlib.closing(Pod(rendered, {}, claims)) as pod:
        pod.start().until_ready()
        status, listed = call(pod.address, owner, "GET", "/v1/secret-references")
        assert status == 200 and [one["id"] for one in listed["data"]] == [made["id"]], listed


@contextlib.contextmanager
def postgres():
    """The URL of a PostgreSQL that pods reach; empty, and thrown away afterwards."""
    process = subprocess.Popen([ROOT / "tests" / "components" / "postgres", "sh", "-c", 'echo "$CONTROL_TESTS_DATABASE_URL"; cat'],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    url = process.stdout.readline().strip()
    if not url:
        raise Skip("PostgreSQL is missing: run tests/run install")
    try:
        with contextlib.closing(Service(PROVIDER, 5432).lead_to(("127.0.0.1", urllib.parse.urlsplit(url).port))):
            yield f"postgres://postgres@{PROVIDER}:5432/postgres"
    finally:
        process.stdin.close()
        process.wait(60)


def key_files():
    made = {"bootstrap-key": OWNER}
    for kind, name in (("signing", "signing-key.pem"), ("api-key-hash", "api-key-hash")):
        file = pathlib.Path(TEMPORARY, f"postgres-{name}")
        must(SIDEKEY, "keygen", "--kind", kind, "--out", file)
        made[name] = file.read_text()
    return made


class Writers:
    """Clients of the admin API, each call on a connection of its own; what was acknowledged, and what was not."""

    def __init__(self):
        self.acknowledged, self.failed, self.over = [], [], threading.Event()
        self.threads = [threading.Thread(target=self.write, args=(number,)) for number in range(3)]
        for thread in self.threads:
            thread.start()

    def write(self, writer):
        number = 0
        while not self.over.wait(0.02):
            number += 1
            name = f"ws-{writer}-{number}"
            try:
                status, said = call(SERVICE, OWNER, "POST", "/v1/admin/workspaces", {"name": name, "slug": name})
                (self.acknowledged if status == 200 else self.failed).append((name, status, said))
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failed.append((name, repr(error)))

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join()


def snapshot(pod):
    with contextlib.closing(http.client.HTTPConnection(*endpoint(pod), timeout=10)) as connection:
        connection.request("GET", "/v1/snapshot", headers={"authorization": f"Bearer {TOKEN}"})
        reply = connection.getresponse()
        assert reply.status == 200
        return json.loads(reply.read())


def test_control_planes_on_postgresql_are_replaced_without_a_failed_call():
    """Two begin at once on an empty database, one of them makes the schema; both are replaced while clients write."""
    rendered = objects({"mode": "none", "snapshot": {"source": "none"}, "controlPlane": {
        "enabled": True, "replicas": 2, "config": {"data_planes": [{"name": "pods", "token_sha256": DIGEST}]},
        "databaseUrlSecret": {"name": "database"}, **{f"{key}Secret": {"name": "keys"} for key in ("bootstrapKey", "apiKeyHash", "signingKey")}}})
    with postgres() as url, contextlib.ExitStack() as stack:
        content = {"database": {"url": url}, "keys": key_files()}

        def made():
            return stack.enter_context(contextlib.closing(Pod(rendered, content)))

        first = [made(), made()]
        together = [threading.Thread(target=pod.start) for pod in first]
        for thread in together:
            thread.start()
        for thread in together:
            thread.join()
        for pod in first:
            pod.until_ready()
        service = stack.enter_context(contextlib.closing(Service(SERVICE, 8902).lead_to(*map(endpoint, first))))
        writers = Writers()
        try:
            for old in first:
                fresh = made().start().until_ready()
                service.lead_to(endpoint(fresh), *service.endpoints)
                rest = [one for one in service.endpoints if one != endpoint(old)]
                # kube-proxy is late.
                threading.Timer(1, service.lead_to, rest).start()
                assert old.terminate() == {"control-plane": (0, True)}, old.logs()
        finally:
            writers.end()
        assert not writers.failed, f"{len(writers.failed)} of {len(writers.acknowledged) + len(writers.failed)} calls failed: {writers.failed[:3]}"
        there = {one["slug"] for one in snapshot(fresh)["workspaces"]}
        assert len(writers.acknowledged) > 50 and {name for name, *_ in writers.acknowledged} <= there
        print(f"{len(writers.acknowledged)} writes, none failed, all in the feed")
