"""What is measured: a family of the command line becomes one or more scenarios, each with its peers."""

from dataclasses import dataclass

FAMILIES = ("closed", "tls", "large", "open", "streams", "gateway")

# How Sidekey is asked: the virtual key by header, or a fallback config of three targets that has to be rebuilt.
SIDEKEY = ("sidekey header", "sidekey config")
# The gateway alone, and what a client sees of it through Sidekey.
GATEWAY = ("gateway", "gateway behind sidekey")


@dataclass(frozen=True)
class Scenario:
    """One load on a list of peers. The first peer is what the others are compared with."""

    name: str
    family: str
    peers: tuple
    connections: int = 64
    tls: bool = False
    http2: bool = False
    answer_bytes: int = 0  # 0 = the small answer
    rate: int = 0  # requests per second of an open loop; 0 = closed loop
    streams: bool = False  # long answers, a chunk at a time; what is counted and timed is the chunk


def chosen(families, others, rate):
    """The scenarios of these families, in the order of `FAMILIES`."""
    plain = tuple(others) + SIDEKEY
    nginx = ("nginx",) if "nginx" in others else ()
    every = {
        "closed": [Scenario(f"{n} connection{'s' * (n > 1)}", "closed", plain, connections=n) for n in (1, 64, 512)],
        "tls": [
            Scenario("TLS, HTTP/1.1", "tls", nginx + SIDEKEY, tls=True),
            Scenario("TLS, HTTP/2", "tls", nginx + SIDEKEY, tls=True, http2=True),
            Scenario("clear text, HTTP/2", "tls", nginx + SIDEKEY, http2=True),
        ],
        "large": [Scenario("answers of 100 KB", "large", plain, answer_bytes=100_000)],
        "open": [Scenario(f"open loop, {rate}/s", "open", plain, rate=rate)],
        "streams": [Scenario("1,000 SSE streams", "streams", ("direct",) + plain, connections=1000, streams=True)],
        "gateway": [
            Scenario("Portkey gateway", "gateway", GATEWAY, connections=16),
            # Below what it can do: what is added to a full queue would be the queue.
            Scenario("Portkey gateway, open loop, 200/s", "gateway", GATEWAY, connections=4, rate=200),
            Scenario("Portkey gateway, 40 SSE streams", "gateway", GATEWAY, connections=40, streams=True),
        ],
    }
    return [scenario for family in FAMILIES if family in families for scenario in every[family] if scenario.peers]
