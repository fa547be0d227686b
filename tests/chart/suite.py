"""Runs the tests of the chart, and prints what `cargo test` prints.

A test is a function of a module below whose name begins with `test_`; it raises when something is wrong, and Skip when the
machine lacks something (a failure with REAL_TESTS_REQUIRE).
"""
import os
import sys
import time
import traceback

import cluster
import control
import identities
import image
import outage
import pod
import rendering
from bench import Skip


def main(names):
    tests = [(f"{module.__name__}::{name.removeprefix('test_')}", getattr(module, name))
             for module in (rendering, pod, identities, control, outage, cluster, image) for name in vars(module) if name.startswith("test_")]
    chosen = [(name, test) for name, test in tests if not names or any(wanted in name for wanted in names)]
    required = bool(os.environ.get("REAL_TESTS_REQUIRE"))
    counts = {"ok": 0, "FAILED": 0, "ignored": 0}
    began = time.monotonic()
    print(f"\nrunning {len(chosen)} tests of the chart", flush=True)
    for name, test in chosen:
        start = time.monotonic()
        try:
            test()
            verdict, detail = "ok", ""
        except Skip as reason:
            verdict, detail = ("FAILED" if required else "ignored"), f", {reason}"
        except Exception:  # a test says what is wrong by raising anything
            verdict, detail = "FAILED", "\n" + traceback.format_exc()
        counts[verdict] += 1
        print(f"test chart::{name} ... {verdict}{detail} ({time.monotonic() - start:.1f} s)", flush=True)
    print(f"\ntest result: {'FAILED' if counts['FAILED'] else 'ok'}. {counts['ok']} passed; {counts['FAILED']} failed; "
          f"{counts['ignored']} ignored; 0 measured; {len(tests) - len(chosen)} filtered out; finished in {time.monotonic() - began:.2f}s")
    return 1 if counts["FAILED"] else 0


if __name__ == "__main__":
    if sys.argv[2:3] == ["--bless"]:
        rendering.bless()
    else:
        sys.exit(main(sys.argv[2:]))
