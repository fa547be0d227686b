"""What tests of the chart stand on: where tools are, how the chart is rendered, one folder for all that is thrown away."""
import atexit
import copy
import pathlib
import shutil
import subprocess
import sys
import tempfile

import yaml

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CHART = ROOT / "helm"
CACHE = pathlib.Path(sys.argv[1]).resolve()
HELMS = {version: CACHE / f"helm{version}" / "helm" for version in (3, 4)}
KUBECTL = CACHE / "helm4" / "kubectl"
SIDEKEY = ROOT / "target" / "debug" / "sidekey"
CASES = sorted((HERE / "cases").glob("*.values.yaml"))
TEMPORARY = pathlib.Path(tempfile.mkdtemp(prefix="sidekey-chart-"))
atexit.register(shutil.rmtree, TEMPORARY, ignore_errors=True)


class Skip(Exception):
    """The machine lacks something; the text says what, and how to get it."""


def need(path):
    if not pathlib.Path(path).exists():
        raise Skip(f"{path} is missing: run tests/run install")
    return str(path)


def run(*command, **options):
    """(status, output) of a command that must come to an end."""
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **{"timeout": 300, **options})
    return done.returncode, done.stdout


def must(*command, **options):
    status, output = run(*command, **options)
    assert status == 0, f"{' '.join(map(str, command))}: exit {status}\n{output}"
    return output


def files_of(case):
    """The values files of a case: its own, over values-ha.yaml where its name says so."""
    own = HERE / "cases" / f"{case}.values.yaml"
    return [CHART / "values-ha.yaml", own] if case == "ha" else [own]


def template(*values, chart=CHART, helm=4, release="sidekey", namespace="gateways", arguments=()):
    command = [need(HELMS[helm]), "template", release, chart, "--namespace", namespace, "--kube-version", "1.33", *arguments]
    for one in values:
        command += ["--values", one]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def render(case, **options):
    status, output = template(*files_of(case), **options)
    assert status == 0, output
    return [one for one in yaml.safe_load_all(output) if one]


def render_values(values, base="minimal", **options):
    file = TEMPORARY / "own.values.yaml"
    file.write_text(yaml.safe_dump(values))
    return template(*files_of(base), file, **options)


def find(objects, kind, name=None):
    found = [one for one in objects if one["kind"] == kind and name in (None, one["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects {kind} {name}"
    return copy.deepcopy(found[0])
