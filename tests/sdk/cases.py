"""What the Python scripts share: the talk with tests/real/sdk.rs, which checks what the provider received.

A script names its cases with @case and ends with run(). After each one it prints a line of JSON and waits for a line on
standard input, so that every request at the provider belongs to exactly one case.
"""

import json
import os
import pathlib
import sys
import urllib.request

BASE_URL = os.environ["BASE_URL"]
"""Where Sidekey listens, without a path."""
CLIENT_KEY = os.environ["CLIENT_KEY"]
"""The Portkey API key of the client."""
FALLBACK = {
    "strategy": {"mode": "fallback"},
    "targets": [{"provider": "@openai-prod"}, {"virtual_key": "openai-backup"}],
}
"""A config over two virtual keys, which have two references."""
FIRST_FAILS = "first-fails"
"""The model that the provider refuses to the first of the two."""
PING = [{"role": "user", "content": "ping"}]
TIMEOUT_SECS = 30

_cases = []


def case(name):
    """Registers a function as the case `name` of tests/real/sdk.rs."""
    return lambda body: _cases.append((name, body))


def audio():
    """An open file of 16 KiB that are no text. (The Portkey SDK opens it once more, by its name.)"""
    file = pathlib.Path(__file__).with_name("ping.mp3")
    file.write_bytes(b"ID3" + bytes(range(256)) * 64)
    return file.open("rb")


def expect(actual, wanted):
    """Raises unless both are equal."""
    if actual != wanted:
        raise AssertionError(f"{actual!r} instead of {wanted!r}")


def gate(name):
    """A message whose answer streams one event per release(name)."""
    return [{"role": "user", "content": f"gate:{name}"}]


def release(name):
    """Lets the provider send the next event of the stream behind gate(name)."""
    urllib.request.urlopen(urllib.request.Request(f"http://provider.test/gate/{name}", method="POST"), timeout=5)


def run():
    """Runs the cases in order."""
    for name, body in _cases:
        try:
            body()
            outcome = {"case": name, "ok": True}
        except Exception as error:  # whatever an SDK raises is the finding
            outcome = {"case": name, "ok": False, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(outcome), flush=True)
        sys.stdin.readline()
