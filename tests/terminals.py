"""Terminals for tests: one that shows what a person would see, and a real one that a program runs on.

`Screen` knows the few sequences that the live console writes and fails on any other. It wraps like most terminals: what
stands there is wrapped anew when it is made narrower. It is as high as need be.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fcntl import ioctl

from strata_engine.words import cells

SECONDS = 60.0
"""After so long what has not happened will not: no measure of speed."""

CONTROLLED = """\
import fcntl, os, sys, termios
fcntl.ioctl(2, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Makes standard error the controlling terminal, and becomes the program."""

PART = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)", re.DOTALL)


class Screen:
    """What stands on a terminal after it was written to."""

    def __init__(self, width: int = 80) -> None:
        self.width = width
        self.rows: list[str] = [""]
        self._wrapped: list[bool] = [False]
        """Whether a row goes on in the next."""
        self.row = 0
        self.column = 0

    @property
    def lines(self) -> list[str]:
        """Give the rows, without empty ones at the end."""
        rows = [row.rstrip() for row in self.rows]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def write(self, text: str) -> None:
        """Do what a terminal does with `text`."""
        position = 0
        while position < len(text):
            found = PART.match(text, position)
            assert found is not None, f"no sequence of ours: {text[position : position + 20]!r}"
            position = found.end()
            if found[6]:
                self._put(found[6])
            elif found[4]:
                self.column = 0
            elif found[5]:
                self._down()
            else:
                assert not found[1], "modes of the terminal stay as they are"
                self._control(found[3], int(found[2].split(";")[0] or "0"))

    def resize(self, width: int) -> None:
        """Make the terminal another width."""
        lines: list[str] = []
        at = 0
        for number, row in enumerate(self.rows):
            if number and self._wrapped[number - 1]:
                lines[-1] += row
            else:
                lines.append(row)
            if number == self.row:
                at = len(lines) - 1
        self.width, self.rows, self._wrapped = width, [], []
        for number, line in enumerate(lines):
            parts = [line[start : start + width] for start in range(0, len(line), width)] or [""]
            if number == at:
                self.row = len(self.rows) + len(parts) - 1
            self.rows += parts
            self._wrapped += [True] * (len(parts) - 1) + [False]

    def _put(self, text: str) -> None:
        for char in text:
            if self.column + cells(char) > self.width:
                self._wrapped[self.row] = True
                self._down()
                self.column = 0
            row = self.rows[self.row].ljust(self.column)
            # Wide characters are followed by nothing here, so that a column is an index.
            self.rows[self.row] = row[: self.column] + char.ljust(cells(char), "\0") + row[self.column + cells(char) :]
            self.column += cells(char)

    def _down(self) -> None:
        self.row += 1
        self.column = 0
        if self.row == len(self.rows):
            self.rows.append("")
            self._wrapped.append(False)

    def _control(self, letter: str, number: int) -> None:
        match letter:
            case "m":
                pass
            case "A":
                self.row = max(0, self.row - number)
            case "K":
                self.rows[self.row] = self.rows[self.row][: self.column]
            case "J":
                self._control("K", 0)
                del self.rows[self.row + 1 :], self._wrapped[self.row + 1 :]
                self._wrapped[self.row] = False
            case "M":
                del self.rows[self.row : self.row + number], self._wrapped[self.row : self.row + number]
                if self.row >= len(self.rows):
                    self.rows.append("")
                    self._wrapped.append(False)
            case _:
                raise AssertionError(f"no sequence of ours: {letter}")


class Terminal:
    """A pseudo-terminal with a process on it, and what that has written so far."""

    def __init__(self, process: subprocess.Popen[bytes], ours: int) -> None:
        self.process = process
        self._ours = ours
        self._drawn = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def drawn(self) -> str:
        """Give all that was written, with the line ends of the program."""
        return bytes(self._drawn).decode("utf-8", "replace").replace("\r\n", "\n")

    def shown(self, width: int = 80) -> list[str]:
        """Give what a person sees of it, on a terminal that always had this width."""
        screen = Screen(width)
        screen.write(self.drawn)
        return screen.lines

    def wait_for(self, pattern: str, after: int = 0) -> int:
        """Wait until something was written, and give where it ends."""
        until = time.monotonic() + SECONDS
        while (found := re.compile(pattern).search(self.drawn, after)) is None:
            assert time.monotonic() < until, self.drawn
            assert self.process.poll() is None or self._reader.is_alive(), self.drawn
            time.sleep(0.02)
        return found.end()

    def settle(self) -> int:
        """Give how much was written, by a process that is stopped and writes no more."""
        before = -1
        while before != len(self.drawn) or int.from_bytes(
            fcntl.ioctl(self._ours, termios.FIONREAD, bytes(4)), "little"
        ):
            before = len(self.drawn)
            time.sleep(0.1)
        return before

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._ours, keys)

    def resize(self, columns: int, rows: int = 24) -> None:
        """Make the terminal another size."""
        _set_size(self._ours, columns, rows)

    def end(self) -> int:
        """Wait for the process's end and give its exit code."""
        code = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        return code

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:
                return
            if not data:
                return
            self._drawn += data


@contextmanager
def on_a_terminal(
    command: Sequence[str], environ: Mapping[str, str], *, columns: int = 80, rows: int = 24, **more: object
) -> Iterator[Terminal]:
    """Run a program on a terminal of its own, its standard error and controlling terminal. Keys are not shown."""
    ours, theirs = pty.openpty()
    _set_size(ours, columns, rows)
    modes = termios.tcgetattr(theirs)
    modes[3] &= ~termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, modes)
    process = subprocess.Popen(
        [sys.executable, "-c", CONTROLLED, *command],
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={**environ, "TERM": environ.get("TERM", "xterm")},
        start_new_session=True,
        **more,  # type: ignore[call-overload]  # goes on to Popen as it is
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)


def _set_size(terminal: int, columns: int, rows: int) -> None:
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
