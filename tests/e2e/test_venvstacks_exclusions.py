"""`dynlib_exclude` means what it means in venvstacks, whose own function is asked."""

from __future__ import annotations

import json
import subprocess

from glob_samples import PATHS, PATTERNS
from venvstacks import Venvstacks

from strata_rules.link.globs import excluder


def test_exclusions_are_those_of_venvstacks(venvstacks: Venvstacks) -> None:
    """The patterns are tried by the real tool's own functions; the layer's folders alone count, not where it lies."""
    theirs = """
import json, sys
from pathlib import Path
from venvstacks import _util
patterns, paths = json.load(sys.stdin)
json.dump([[not list(_util.find_shared_libraries(("3", "99"), Path("/"), excluded=[pattern],
            walk_iter=lambda _: [("/" + path.rpartition("/")[0], [], [path.rpartition("/")[2]])]))
            for path in paths] for pattern in patterns], sys.stdout)
"""
    # It takes none for a library that has not this suffix.
    paths = [f"{path}.so" for path in PATHS]
    patterns = [*PATTERNS, *(f"{pattern}.so" for pattern in PATTERNS)]
    done = subprocess.run(
        [venvstacks.python, "-c", theirs],
        input=json.dumps([patterns, paths]),
        capture_output=True,
        text=True,
        check=True,
    )
    for pattern, expected in zip(patterns, json.loads(done.stdout), strict=True):
        ours = excluder([pattern])
        assert {path: ours(path) is not None for path in paths} == dict(zip(paths, expected, strict=True)), pattern
