"""One sample: a load for some seconds on one target, and what came of it.

Closed loops run by wrk over HTTP/1.1 and by h2load over HTTP/2, the open loop by h2load with a rate per connection, streams by
`streams/`. CPU is the scheduler's own account of the proxy's threads (nanoseconds, /proc/PID/task/*/schedstat).
"""

import json
import os
import re
import subprocess
from dataclasses import dataclass

BODY = '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hello"}]}'
STREAM_BODY = '{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"hello"}]}'  # as `streams/` sends it
CONFIG = (
    '{"strategy":{"mode":"fallback"},"targets":[{"provider":"@openai-prod"},{"virtual_key":"openai-prod"},'
    '{"provider":"@openai-prod","override_params":{"model":"gpt-4o"}}]}'
)
UNITS = {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}


@dataclass
class Sample:
    """Rates per second, latencies in milliseconds, CPU of the proxy in microseconds per request."""

    rate: float
    p50: float
    p99: float
    p999: float
    cpu: float

    def __str__(self):
        return f"{self.rate:.0f}/s p50 {self.p50:.3f} p99 {self.p99:.3f} p99.9 {self.p999:.3f} ms, {self.cpu:.1f} us CPU"


def sample(stage, scenario, target, seconds):
    """Loads `target` for `seconds`. An answer that is not a success ends the program: it would be a fast one."""
    before = cpu_ns(target.pids)
    if scenario.streams:
        rate, latencies, count = streams(stage, scenario, target, seconds)
    elif scenario.http2 or scenario.rate:
        rate, latencies, count = h2load(stage, scenario, target, seconds)
    else:
        rate, latencies, count = wrk(stage, scenario, target, seconds)
    return Sample(rate, *latencies, cpu=(cpu_ns(target.pids) - before) / 1000 / max(count, 1))


def wrk(stage, scenario, target, seconds):
    headers = "\n".join(f"wrk.headers[{json.dumps(n)}] = {lua(v)}" for n, v in target.headers.items())
    script = stage.file(f"{target.port}.lua", f"""
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
{headers}
wrk.body = {lua(BODY)}
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), latency:percentile(99.9), e.connect + e.read + e.write + e.status + e.timeout))
end
""")
    output = stage.beside(["wrk", "-t1", f"-c{scenario.connections}", f"-d{seconds}s", "--timeout", "20s", "-s", script, target.url])
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", output)
    if not found or found[6] != "0":
        raise SystemExit(f"compare: {scenario.name}: {target.label} had errors\n{output}")
    count, duration, p50, p99, p999 = (int(found[n]) for n in range(1, 6))
    return count / (duration / 1e6), (p50 / 1e3, p99 / 1e3, p999 / 1e3), count


def h2load(stage, scenario, target, seconds):
    log, body = stage.run / f"{target.port}.log", stage.file("body.json", BODY)
    log.unlink(missing_ok=True)
    command = ["h2load", "-t1", f"-c{scenario.connections}", "-d", body, f"--log-file={log}", "-H", "content-type: application/json"]
    if scenario.rate:
        per_client = max(1, scenario.rate // scenario.connections)
        command += ["--h1", f"--rps={per_client}", f"-n{per_client * scenario.connections * seconds}"]
    else:
        command += ["-D", str(seconds), "-m", "4"]
    for name, value in target.headers.items():
        command += ["-H", f"{name}: {value}"]
    output = stage.beside(command + [target.url])
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    if not rows or any(row[1] != "200" for row in rows):
        raise SystemExit(f"compare: {scenario.name}: {target.label} had errors\n{output}")
    times = sorted(int(row[2]) / 1e3 for row in rows)
    ends = [int(row[0]) + int(row[2]) for row in rows]
    took = (max(ends) - min(int(row[0]) for row in rows)) / 1e6
    return len(rows) / took, tuple(times[min(len(times) - 1, int(len(times) * p))] for p in (0.5, 0.99, 0.999)), len(rows)


def streams(stage, scenario, target, seconds):
    headers = [part for name, value in target.headers.items() for part in ("--header", f"{name}: {value}")]
    output = stage.beside([stage.streams(), "load", target.url, str(scenario.connections), str(seconds), *headers])
    found = json.loads(output)
    if found["failed"]:
        raise SystemExit(f"compare: {scenario.name}: {found['failed']} streams through {target.label} failed")
    return found["chunks_per_second"], (found["p50_ms"], found["p99_ms"], found["p999_ms"]), found["chunks"]


def cpu_ns(pids):
    """CPU time of these processes and their children so far."""
    total = 0
    for pid in family(pids):
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/schedstat") as stat:
                    total += int(stat.read().split()[0])
        except FileNotFoundError:
            continue
    return total


def family(pids):
    found = list(pids)
    for pid in found:
        try:
            with open(f"/proc/{pid}/task/{pid}/children") as children:
                found += [int(child) for child in children.read().split()]
        except FileNotFoundError:
            continue
    return found


def lua(text):
    return "[==[" + text + "]==]"
