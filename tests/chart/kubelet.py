"""As much of a kubelet as a rendered pod needs: volumes, namespaces, users, capabilities, probes, and the order of an end.

A pod has a network of its own; each container its own mounts (a read-only root made of read-only binds) and its own
processes, the started program being process 1, without capabilities, as the user the pod says. A native sidecar starts
before and is stopped after the containers; containers are stopped together, each after its preStop hook.
"""
import os
import pathlib
import shlex
import signal
import subprocess
import threading
import time
import urllib.request

from bench import CACHE, SIDEKEY, TEMPORARY, Skip, must, need

GATEWAY = CACHE / "npm-portkey" / "node_modules"
PROVIDER = "10.99.0.1"  # an address of the node that every pod reaches
FOLDERS = ["/usr", "/lib", "/lib64", "/bin"]
SERVICE = "10.99.0.2"  # the cluster address of the control plane's Service
HOSTS = {"localhost": "127.0.0.1", "models.test": PROVIDER, "vault.test": PROVIDER, "sidekey-control-plane.gateways.svc": SERVICE}
ETC = {"hosts": "".join(f"{address} {name}\n" for name, address in HOSTS.items()), "resolv.conf": "", "nsswitch.conf": "hosts: files\n"}


def node():
    """Makes this process's network a node's. The whole suite runs in a network and processes of its own (tests/chart/run)."""
    if os.geteuid() != 0:
        raise Skip("pods need root")
    if subprocess.run(["ip", "-o", "addr", "show", "to", PROVIDER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout:
        return
    if any(": lo:" not in line for line in must("ip", "-o", "link").splitlines()):
        raise Skip("the suite is not in a network of its own: use tests/chart/run")
    must("ip", "link", "set", "lo", "up")
    for address in (PROVIDER, SERVICE):
        must("ip", "addr", "add", f"{address}/32", "dev", "lo")


class Container:
    def __init__(self, pod, spec):
        self.pod, self.spec, self.name = pod, spec, spec["name"]
        self.log = pod.folder / f"{self.name}.log"
        self.root = pod.folder / f"{self.name}.root"
        self.process = None

    def start(self):
        self.root.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["nsenter", f"--net=/proc/{self.pod.pause.pid}/ns/net", "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", self.script()],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        # Process 1 of the container: the only child of unshare.
        self.pid = until(f"{self.name} has a process", self.first_process)

    def first_process(self):
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = children.read_text().split() if children.exists() else []
        return int(found[0]) if found else None

    def script(self):
        root, lines = self.root, []

        def bind(source, target, writable=False):
            at = f"{root}{target}"
            make = f"mkdir -p {at}" if os.path.isdir(source) else f"mkdir -p {os.path.dirname(at)} && touch {at}"
            lines.append(f"{make}; mount --bind {source} {at}" + ("" if writable else f"; mount -o remount,bind,ro {at}"))

        lines.append(f"mount -t tmpfs -o mode=755 root {root}")
        for folder in FOLDERS:
            bind(folder, folder)
        for name in ETC:
            bind(self.pod.folder / "etc" / name, f"/etc/{name}")
        if self.name == "gateway":
            bind(GATEWAY / "@portkey-ai" / "gateway" / "build", "/app/build")
            bind(GATEWAY / "@portkey-ai" / "gateway" / "package.json", "/app/package.json")
            bind(GATEWAY, "/app/node_modules")
        else:
            bind(SIDEKEY, "/image/sidekey")
        for mount in self.spec["volumeMounts"]:
            bind(self.pod.volumes[mount["name"]], mount["mountPath"], writable=not mount.get("readOnly", False))
        lines.append(f"mkdir {root}/proc {root}/dev; mount -t proc proc {root}/proc")
        for device in ("null", "urandom"):
            bind(f"/dev/{device}", f"/dev/{device}", writable=True)
        lines.append(f"mount -o remount,ro {root}")
        lines.append("exec " + self.inside([*self.spec.get("command", ["/image/sidekey"]), *self.spec.get("args", [])]))
        return "\n".join(lines)

    def inside(self, command):
        security = self.spec["securityContext"]
        assert security["readOnlyRootFilesystem"] and security["capabilities"]["drop"] == ["ALL"]
        user, group = security.get("runAsUser", 1000650000), security.get("runAsGroup", 0)  # OpenShift picks from a range
        env = [f"{one['name']}={one['value']}" for one in self.spec.get("env", [])]
        # The capability set is dropped by chroot's successor, so that chroot itself may still work.
        drop = ["setpriv", f"--reuid={user}", f"--regid={group}", f"--groups={self.pod.group}", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        directory = "/app" if self.name == "gateway" else "/"
        return shlex.join(["chroot", str(self.root), "env", "-i", f"--chdir={directory}", "PATH=/usr/bin:/bin", *env, *drop, *command])

    def exec(self, command):
        """Runs a command in the container, as `exec` hooks do; its status and output."""
        done = subprocess.run(["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "sh", "-c", self.inside(command)],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
        return done.returncode, done.stdout

    def restart(self):
        """The process dies and the kubelet starts it again, in the same pod: its volumes stay."""
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait(10)
        self.start()
        self.pod.wait(self, "startupProbe")

    def probe(self, kind):
        get = self.spec[kind]["httpGet"]
        port = next(port["containerPort"] for port in self.spec["ports"] if port["name"] == get["port"])
        try:
            with urllib.request.urlopen(f"http://{self.pod.address}:{port}{get['path']}", timeout=self.spec[kind].get("timeoutSeconds", 1)) as reply:
                return reply.status == 200
        except OSError:
            return False

    def stop(self, deadline):
        """preStop, SIGTERM, and SIGKILL at the deadline. The exit status, and whether it came by itself."""
        hook = self.spec.get("lifecycle", {}).get("preStop")
        if hook:
            self.exec(hook["exec"]["command"])
        os.kill(self.pid, signal.SIGTERM)
        try:
            return self.process.wait(max(deadline - time.monotonic(), 0)), True
        except subprocess.TimeoutExpired:
            os.kill(self.pid, signal.SIGKILL)
            return self.process.wait(10), False


class Pod:
    """A pod of the first Deployment, or of the one of that `name`. `content`: what ConfigMaps and Secrets hold that the chart does
    not make, {name: {key: text}}; `tokens` gives one for an audience. A claim is a folder of `claims`, and outlives the pod."""

    count = 0

    def __init__(self, objects, content, claims=None, name=None):
        node()
        need(GATEWAY)
        Pod.count += 1
        self.number = Pod.count
        self.folder = TEMPORARY / f"pod-{self.number}"
        self.folder.mkdir()
        self.spec = next(one for one in objects if one["kind"] == "Deployment" and name in (None, one["metadata"]["name"]))["spec"]["template"]["spec"]
        assert self.spec["automountServiceAccountToken"] is False
        # The group of volumes; OpenShift gives every pod one. Without it, only root could read Secrets.
        openshift = all("runAsUser" not in one["securityContext"] for one in self.spec["containers"])
        self.group = self.spec.get("securityContext", {}).get("fsGroup", 1000650000 if openshift else 0)
        made = {one["metadata"]["name"]: one["data"] for one in objects if one["kind"] == "ConfigMap"}
        self.claims = claims
        self.volumes = {volume["name"]: self.volume(volume, {**content, **made}) for volume in self.spec["volumes"]}
        self.write(self.folder / "etc", ETC, 0o644)
        self.address = f"10.77.{self.number}.2"
        self.pause = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        until("the pod has a network", lambda: os.readlink(f"/proc/{self.pause.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
        link, gateway = f"pod{self.number}", f"10.77.{self.number}.1"
        must("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(self.pause.pid))
        must("ip", "addr", "add", f"{gateway}/30", "dev", link)
        must("ip", "link", "set", link, "up")
        for command in (["link", "set", "lo", "up"], ["addr", "add", f"{self.address}/30", "dev", "eth0"], ["link", "set", "eth0", "up"],
                        ["route", "add", "default", "via", gateway]):
            must("nsenter", f"--net=/proc/{self.pause.pid}/ns/net", "ip", *command)
        self.sidecars = [Container(self, one) for one in self.spec.get("initContainers", [])]
        self.containers = [Container(self, one) for one in self.spec["containers"]]

    def __getitem__(self, name):
        return next(one for one in self.sidecars + self.containers if one.name == name)

    def write(self, folder, files, mode):
        folder.mkdir(parents=True, exist_ok=True)
        for key, text in files.items():
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(mode)
            os.chown(path, 0, self.group)
        return folder

    def volume(self, volume, content):
        folder = self.folder / "volumes" / volume["name"]
        if "configMap" in volume:
            return self.write(folder, content[volume["configMap"]["name"]], 0o644)
        if "secret" in volume:
            held, items = content[volume["secret"]["secretName"]], volume["secret"].get("items")
            chosen = held if items is None else {one["path"]: held[one["key"]] for one in items}
            return self.write(folder, chosen, volume["secret"]["defaultMode"])
        if "projected" in volume:
            tokens = [one["serviceAccountToken"] for one in volume["projected"]["sources"]]
            return self.write(folder, {one["path"]: content["tokens"](one["audience"]) for one in tokens}, volume["projected"]["defaultMode"])
        if "persistentVolumeClaim" in volume:
            folder = self.claims / volume["persistentVolumeClaim"]["claimName"]
        else:
            assert "emptyDir" in volume, volume
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, 0, self.group)
        folder.chmod(0o2777)
        return folder

    def start(self):
        for sidecar in self.sidecars:
            sidecar.start()
            self.wait(sidecar, "startupProbe")
        for container in self.containers:
            container.start()
        for container in self.containers:
            if "startupProbe" in container.spec:
                self.wait(container, "startupProbe")
        return self

    def ready(self):
        return all(one.probe("readinessProbe") for one in self.containers if "readinessProbe" in one.spec)

    def until_ready(self):
        until(f"pod {self.number} is ready", self.ready, seconds=60, dump=self.logs)
        return self

    def wait(self, container, kind):
        def look():
            status = container.process.poll()
            assert status is None, f"{container.name} ended with {status}: {container.log.read_text()}"
            return container.probe(kind)
        until(f"{container.name} passes its {kind}", look, seconds=60, dump=self.logs)

    def logs(self):
        return "".join(f"--- {one.name}\n{one.log.read_text()[-3000:]}\n" for one in self.sidecars + self.containers if one.log.exists())

    def terminate(self):
        """Ends the pod; {container: (status, by itself)}."""
        deadline = time.monotonic() + self.spec["terminationGracePeriodSeconds"]
        ends = {}

        def stop(container):
            ends[container.name] = container.stop(deadline)

        threads = [threading.Thread(target=stop, args=(one,)) for one in self.containers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for sidecar in reversed(self.sidecars):
            stop(sidecar)
        self.close()
        return ends

    def close(self):
        for one in self.sidecars + self.containers:
            if one.process and one.process.poll() is None:
                one.process.kill()
                one.process.wait()
        self.pause.kill()
        self.pause.wait()


def until(what, look, seconds=30, dump=lambda: ""):
    deadline = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not after {seconds} s: {what}\n{dump()}")
        time.sleep(0.02)
