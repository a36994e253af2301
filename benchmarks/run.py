"""What Strata costs, as ratios: each entry measures both sides in one run, on one machine (design §9).

    python benchmarks/run.py [NAME...] [--repeat N]

Run it with the Python of an environment that has Strata and its development tools. `cold`, `export`, `venvstacks` and,
for its server, `remote-grpc` ask the package index. Exits with 1 where a budget does not hold: what else a busy machine
does may be why.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from beside_venvstacks import venvstacks
from exports import export
from measuring import HEADING, Compared, compile_bytecode
from questions import why
from quickstart import cold, edit, null, publish
from remote_stack import remote_stack
from remotes import remote_http, remote_objects
from remotes_grpc import remote_grpc

ENTRIES: dict[str, Callable[[Path, int], Iterator[Compared]]] = {
    "null": null,
    "edit": edit,
    "cold": cold,
    "publish": publish,
    "why": why,
    "export": export,
    "venvstacks": venvstacks,
    "remote-stack": remote_stack,
    "remote-http": remote_http,
    "remote-objects": remote_objects,
    "remote-grpc": remote_grpc,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what Strata costs, as ratios.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(ENTRIES)}; all by default")
    parser.add_argument("--repeat", type=int, default=41, metavar="N", help="how often the short ones run")
    given = parser.parse_args()
    if unknown := set(given.names) - set(ENTRIES):
        parser.error(f"no entry is called {', '.join(sorted(unknown))}; there are {', '.join(ENTRIES)}")
    compile_bytecode()
    load = f"; load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{os.cpu_count()} cores{load}\n{HEADING}", flush=True)
    over = False
    with tempfile.TemporaryDirectory(prefix="strata-benchmark-") as folder:
        for name in given.names or ENTRIES:
            for compared in ENTRIES[name](Path(folder), given.repeat):
                over |= compared.is_over
                print(compared.line(), flush=True)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
