"""The image of the Dockerfile: built without a registry, small, empty but for what it needs, and at work as a stranger.

The Rust image is replaced by this machine's own toolchain, bound into the build; nothing else of the Dockerfile changes. Where
cgroups are nested, that takes the flags below (vfs, chroot, runc, low limits). PROFILE=dist in the environment builds what is
shipped, which takes minutes longer.
"""
import contextlib
import functools
import http.client
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import threading
import time

from bench import CACHE, ROOT, TEMPORARY, Skip, must, need, run
from cluster import vault
from kubelet import PROVIDER, node, until

GIVEN = os.environ.get("TEST_IMAGE")
TAG = GIVEN or "localhost/sidekey:test"
STRANGER = "1000650000:0"  # a number that no image knows
KEY = "sk-canary-of-the-image"
PROFILE = os.environ.get("PROFILE", "release")
# The bound is on what is shipped; what is built here without its link-time optimisation is larger.
MEGABYTES = 30 if PROFILE == "dist" else 40
STORE = ["--root", CACHE / "images" / "store", "--runroot", CACHE / "images" / "run", "--storage-driver", "vfs"]
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]


def buildah(*arguments, **options):
    return must(tool("buildah"), *STORE, *arguments, **options)


def tool(name):
    if os.geteuid() != 0:
        raise Skip("building images needs root")
    return need(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") or f"/usr/bin/{name}")


@functools.cache
def rust_image():
    """This machine as an image: folders are bound when RUN steps run, so that it stays empty. One for each toolchain, as caches go by it."""
    name = f"localhost/rust-here:{must('rustc', '--version').split()[1]}"
    if run(tool("buildah"), *STORE, "inspect", "--type", "image", name)[0] == 0:
        return name
    base = buildah("from", "scratch").strip()
    root = pathlib.Path(buildah("mount", base).strip())
    for folder in ("usr", "tmp", "etc/ssl/certs", "rust", "cargo/registry", "src"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for link in ("bin", "sbin", "lib", "lib64"):
        (root / link).symlink_to(f"usr/{link}")
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs")
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    for variable in ("PATH=/rust/bin:/usr/bin:/bin", "CARGO_HOME=/cargo", "CARGO_NET_OFFLINE=true"):
        buildah("config", "--env", variable, base)
    buildah("commit", "-q", base, name)
    buildah("rm", base)
    return name


@functools.cache
def image():
    """Builds it, unless TEST_IMAGE names one of the store to be tested; what `podman image inspect` says."""
    for name in ("buildah", "podman", "runc"):
        tool(name)
    if GIVEN is None:
        build()
    said = json.loads(must(tool("podman"), *STORE, "image", "inspect", TAG))[0]
    print(f"{TAG}: {said['Size']} bytes")
    return said


def build():
    toolchain = must("rustc", "--print", "sysroot").strip()
    registry = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"), "registry")
    began = time.monotonic()
    # The stage that takes long is kept under a name; what else is left of older builds is not.
    for stage in (["--target", "dependencies", "--tag", f"localhost/sidekey-dependencies:{PROFILE}"], ["--tag", TAG]):
        buildah("bud", "--isolation", "chroot", *LIMITS, "--pull-never", "--layers", "--volume", "/usr:/usr:ro", "--volume", "/etc/alternatives:/etc/alternatives:ro",
                "--volume", f"{toolchain}:/rust:ro", "--volume", f"{registry}:/cargo/registry", "--build-arg", f"RUST_IMAGE={rust_image()}",
                "--build-arg", f"PROFILE={PROFILE}", *stage, ROOT, timeout=5400)
    must(tool("podman"), *STORE, "image", "prune", "--force")
    print(f"built with profile {PROFILE} in {time.monotonic() - began:.0f} s")


def container(*arguments):
    """`podman run` of it: read-only, without capabilities, as a stranger."""
    return [tool("podman"), *map(str, STORE), "--cgroup-manager=cgroupfs", "--runtime", tool("runc"), "run", "--rm", "--network=host", *LIMITS,
            "--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt", "no-new-privileges", "--user", STRANGER, *map(str, arguments)]


def test_builds_without_a_registry_and_is_small():
    assert image()["Size"] <= MEGABYTES * 1_000_000, image()["Size"]


def test_says_what_it_is():
    config = image()["Config"]
    assert config["User"] == "65532:65532" and config["Entrypoint"] == ["/usr/bin/sidekey"], config
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0" and "org.opencontainers.image.revision" in config["Labels"]


def test_holds_the_binary_and_authorities_and_no_shell():
    image()
    opened = buildah("from", TAG).strip()
    try:
        root = pathlib.Path(buildah("mount", opened).strip())
        files = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
        assert files == {"usr/bin/sidekey", "etc/ssl/certs/ca-certificates.crt"}, files
        said = must("readelf", "--program-headers", root / "usr/bin/sidekey") if shutil.which("readelf") else ""
        assert "INTERP" not in said, "the binary is static"
        assert str(ROOT).encode() not in (root / "usr/bin/sidekey").read_bytes(), "no path of the builder"
    finally:
        buildah("rm", opened)


def test_shows_the_whole_by_itself():
    """`dev --once`: everything of it on loopback, with a folder in memory for its state."""
    node()
    image()
    status, output = run(*container("--tmpfs", "/tmp:mode=1777", TAG, "dev", "--once"))
    assert status == 0, output


class Gateway(http.server.BaseHTTPRequestHandler):
    """Answers with the credential that arrived."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        text = json.dumps({"authorization": self.headers["authorization"]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_does_the_main_job_as_a_stranger():
    """A secret of OpenBao reaches the gateway; the root is read-only, there are no capabilities and 64 MB of memory."""
    node()
    image()
    folder = TEMPORARY / "image"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer((PROVIDER, 9902), Gateway)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (folder / "snapshot.json").write_text(json.dumps({
        "schema_version": 1, "version": 1, "organisation_id": "acme",
        "secret_references": [{"id": "r1", "slug": "key", "manager_type": "hashicorp_vault", "secret_path": "secret/data/openai", "secret_key": "api_key", "status": "active",
                               "auth_config": {"vault_auth_type": "token", "vault_addr": f"http://{PROVIDER}:8200", "vault_token": "root"}}],
        "virtual_keys": [{"id": "v1", "slug": "models", "provider": "openai", "status": "active",
                          "secret_mappings": [{"target_field": "key", "secret_reference_id": "key"}]}]}))
    (folder / "sidekey.yaml").write_text(json.dumps({
        "listen": f"{PROVIDER}:8910", "allow_unauthenticated": True, "admin_listen": f"{PROVIDER}:8911", "snapshot": {"file": "/etc/sidekey/snapshot.json"},
        "upstream": {"url": f"http://{PROVIDER}:9902", "allow_plaintext": True}, "egress": {"allow_cidrs": [f"{PROVIDER}/32"]},
        "limits": {"drain_delay_secs": 0, "drain_secs": 1}}))
    for file in folder.iterdir():
        file.chmod(0o644)
    bao = subprocess.Popen([need(CACHE / "bao"), "server", "-dev", "-dev-no-store-token", "-dev-root-token-id=root", f"-dev-listen-address={PROVIDER}:8200"],
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"HOME": str(folder), "PATH": os.environ["PATH"]})
    log = folder / "log"
    with contextlib.ExitStack() as stack:
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        stack.callback(bao.wait)
        stack.callback(bao.kill)
        until("the vault answers", lambda: vault("GET", "sys/health")[0] == 200)
        vault("POST", "secret/data/openai", {"data": {"api_key": KEY}}, must_be=200)
        sidekey = subprocess.Popen(container("--name", "sidekey-image-test", "--memory", "64m", "--volume", f"{folder}:/etc/sidekey:ro", TAG, "sidecar", "--config", "/etc/sidekey/sidekey.yaml"),
                                   stdin=subprocess.DEVNULL, stdout=log.open("wb"), stderr=subprocess.STDOUT)
        stack.callback(run, tool("podman"), *STORE, "rm", "--force", "sidekey-image-test")
        until("the container is ready", lambda: sidekey.poll() is not None or answers("GET", 8911, "/readyz")[0] == 200, seconds=60, dump=log.read_text)
        about, mounts = process()
        assert about["CapEff"] == about["CapBnd"] == "0000000000000000" and about["NoNewPrivs"] == "1", about
        root, = [line for line in mounts if line.split()[4] == "/"]
        assert root.split()[5].split(",")[0] == "ro", root
        status, text = answers("POST", 8910, "/v1/chat/completions", json.dumps({"model": "@models/gpt-4o-mini", "messages": []}))
        assert status == 200 and json.loads(text) == {"authorization": f"Bearer {KEY}"}, f"{status} {text}\n{log.read_text()}"
        assert KEY not in log.read_text()
        sidekey.terminate()
        assert sidekey.wait(30) == 0, log.read_text()


def process():
    """What the system says of the container's process: its status, and its mounts."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            about = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
            if about["Name"] == "sidekey" and about["Uid"].split()[0] == STRANGER.split(":")[0]:
                return about, (folder / "mountinfo").read_text().splitlines()
    raise AssertionError("no process of the container")


def answers(method, port, path, body=None):
    connection = http.client.HTTPConnection(PROVIDER, port, timeout=10)
    try:
        connection.request(method, path, body, {"content-type": "application/json"})
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()
