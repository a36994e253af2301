"""Another client of the same cache: an old Bazel and Strata fill one server, and each finds its own again.

Of the full tier (`STRATA_FULL=1`): Bazel is a package of 44 MB, and starts a server of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from caches import nginx
from object_servers import FULL
from space import Space

from strata_engine.remote.results import incoming

PACKAGE = "@bazel/bazel-linux_x64@2.1.0"
RULE = """\
genrule(
    name = "made",
    srcs = ["given.txt"],
    outs = ["made.txt"],
    cmd = "cat $< $< > $@",
)
"""


class Bazel:
    """Bazel in a workspace of one rule."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._root = folder / "root"
        self.folder = folder / "workspace"
        self.folder.mkdir(parents=True)
        for name, text in (("WORKSPACE", ""), ("BUILD", RULE), ("given.txt", "twice\n")):
            (self.folder / name).write_text(text)

    def __call__(self, *arguments: str) -> str:
        command = [self._program, f"--output_user_root={self._root}", "--batch", *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def build(self, url: str) -> str:
        """Build the rule; what it prints says where the result came from."""
        self("clean")
        return self("build", "--noshow_progress", "--spawn_strategy=local", f"--remote_cache={url}", "//:made")


@contextmanager
def installed(folder: Path) -> Iterator[Path]:
    if not FULL:
        pytest.skip("a test of the full tier: STRATA_FULL=1")
    npm = shutil.which("npm")
    if npm is None or os.uname().machine != "x86_64":
        pytest.skip("Bazel is installed by npm, for this kind of machine alone")
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, PACKAGE]
    subprocess.run(command, check=True, timeout=200)
    [program] = (folder / "node_modules").rglob("bazel-2.1.0-linux-x86_64")
    yield program


def test_bazel_and_strata_share_a_server_and_disturb_nobody(space: Space, tmp_path: Path) -> None:
    with installed(tmp_path / "npm") as program, nginx(tmp_path / "server") as server:
        bazel = Bazel(program, tmp_path / "bazel")
        assert "remote cache hit" not in bazel.build(server.url)
        theirs = {path.name for path in (server.data / "ac").iterdir()}
        assert theirs
        first = space.build("--remote-cache", server.url, "--remote-upload", "wait")
        assert first.json["remote"]["sent"] > 15
        assert "1 remote cache hit" in bazel.build(server.url)
        there = space.copy(tmp_path / "there")
        there.store = tmp_path / "there-store"
        assert there.build("--remote-cache", server.url).counts["executed"] == 0
        # What Bazel has written are results to us, too: of other actions, with outputs of other names.
        for name in theirs:
            with pytest.raises(ValueError, match="without exactly one output"):
                incoming((server.data / "ac" / name).read_bytes())
