"""`strata build --watch`: real processes, real changes, and nothing else."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from repositories import write_repository
from space import Space

SECONDS = 40.0
"""After so long what has not happened will not: no measure of speed."""


class Watching:
    """A watching process, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[bytes], stream: int) -> None:
        self.process = process
        self._said = bytearray()
        self._reader = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._reader.start()

    def _read(self, stream: int) -> None:
        while True:
            try:
                data = os.read(stream, 65536)
            except OSError:
                return
            if not data:
                return
            self._said += data

    @property
    def said(self) -> str:
        return self._said.decode("utf-8", "replace").replace("\r\n", "\n")

    def cycles(self) -> list[str]:
        """Give what each finished cycle has said."""
        plain = re.sub(r"\x1b\[[0-9]*[mJH]", "", self.said)
        parts = re.split(r"(?m)^-- \d\d:\d\d:\d\d ", plain)[1:]
        return [part for part in parts if " actions: " in part or "error[" in part]

    def wait(self, cycles: int) -> str:
        """Wait for so many cycles and give what the last one said."""
        until = time.monotonic() + SECONDS
        while len(self.cycles()) < cycles:
            assert time.monotonic() < until, self.said
            assert self.process.poll() is None, self.said
            time.sleep(0.05)
        time.sleep(0.3)
        assert len(self.cycles()) == cycles, self.said
        return self.cycles()[-1]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(SECONDS)


@contextmanager
def watching(space: Space, *labels: str, terminal: bool = False) -> Iterator[Watching]:
    command = [sys.executable, "-m", "strata_rules.entry", "build", *labels, "--watch", "--console", "plain"]
    reader, writer = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(command, cwd=space.root, env=space.variables(), stdout=subprocess.DEVNULL, stderr=writer)
    os.close(writer)
    try:
        yield Watching(process, reader)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(reader)


def test_a_change_of_what_was_read_begins_a_cycle_and_nothing_else_does(built: Space) -> None:
    with watching(built) as it:
        assert it.wait(1).startswith("watching\n")
        module = built.root / "hello.py"
        text = module.read_text()
        module.write_text(text + "# edited\n")
        said = it.wait(2)
        assert said.startswith("changed: hello.py\n")
        assert "executed app-hello/link" in said
        assert "1 executed" in said
        # Neither the build's own writing nor what nobody reads is a change.
        (built.root / "notes").mkdir()
        (built.root / "notes" / "x.txt").write_text("x")
        time.sleep(2.5)
        module.write_text(text)
        assert "1 cached" in it.wait(3)
        (built.root / "_build" / "app-hello" / "extra").write_text("x")
        assert it.wait(4).startswith("changed: _build/app-hello\n")
        assert not (built.root / "_build" / "app-hello" / "extra").exists()
        assert it.stop() == 130
        assert it.said.endswith("interrupted\n")


def test_what_is_wrong_is_said_and_waited_out(built: Space) -> None:
    stack = built.root / "venvstacks.toml"
    text = stack.read_text()
    with watching(built) as it:
        it.wait(1)
        stack.write_text(text + "\n[[oops]\n")
        assert "error[" in it.wait(2)
        stack.write_text(text)
        assert " up to date" in it.wait(3)
        (built.root / "hello.py").rename(built.root / "gone.py")
        assert "error[" in it.wait(4)
        (built.root / "gone.py").rename(built.root / "hello.py")
        assert " up to date" in it.wait(5)
        assert it.stop() == 130


def test_on_a_terminal_each_cycle_has_the_screen(built: Space) -> None:
    with watching(built, terminal=True) as it:
        it.wait(1)
        (built.root / "hello.py").write_text("print('other')\n")
        it.wait(2)
        assert it.said.count("\x1b[2J") == 2
        it.stop()


def test_all_stacks_of_a_repository_are_watched(template: Space, tmp_path: Path) -> None:
    repository = write_repository(template, tmp_path / "root", tmp_path / "store")
    stack = repository.root / "apps/two/venvstacks.toml"
    text = stack.read_text()
    with watching(repository, "//apps/...") as it:
        it.wait(1)
        (repository.root / "apps/one/hello.py").write_text("print('other')\n")
        said = it.wait(2)
        assert said.startswith("changed: apps/one/hello.py\n")
        assert "executed //apps/one:app-hello/link" in said
        assert "1 executed" in said
        stack.write_text(text + "\n[[oops]\n")
        assert "error[" in it.wait(3)
        stack.write_text(text)
        assert " up to date" in it.wait(4)
        assert it.stop() == 130


@pytest.mark.parametrize("option", ["--json", "--dry-run", "--check"])
def test_what_a_watching_build_cannot_do(built: Space, option: str) -> None:
    done = built.strata("build", "--watch", option)
    assert done.code == 2
    assert "error[usage]: `--watch` builds for a person who looks on" in done.stderr
