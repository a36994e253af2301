"""What is written to a terminal so that its last lines change: lasting lines scroll up, the live ones are drawn again.

Pure: it is told how wide the terminal is and gives text. The cursor is never hidden and rests on the row below the
live lines, so that whatever ends or stops the process leaves a terminal that can be used.

Hard part: a terminal that is made narrower. Most wrap what stands there anew, so that what was one row are several;
a few cut it off instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from strata_engine.words import ESCAPE_SEQUENCE, cells


class Frame(NamedTuple):
    """The live lines that stand on the terminal."""

    lines: tuple[int, ...] = ()
    """The columns that each takes."""
    width: int = 0
    """The terminal's width as they were written."""


def frame(
    last: Frame, lasting: Sequence[str], live: Sequence[str], width: int, *, rewraps: bool = True
) -> tuple[Frame, str]:
    """Give what stands then, and the text that writes `lasting` and `live` where the live lines of `last` stood."""
    rows = sum(max(1, -(-taken // max(1, width))) if rewraps else 1 for taken in last.lines)
    text = f"\r\x1b[{rows}A" if rows else ""
    # Overwriting does not flicker. But rows that a terminal has wrapped itself stay one line to it until they are gone;
    # deleted they are, while a screen that is erased as a whole is scrolled away by some.
    clear = "\x1b[K" if rows and width == last.width else ""
    text += f"\x1b[{rows + 1}M" if rows and not clear else ""
    text += "".join(f"{line}{clear}\n" for line in (*lasting, *live))
    text += "\x1b[J" if clear else ""
    return Frame(tuple(cells(ESCAPE_SEQUENCE.sub("", line)) for line in live), width), text


def rewraps(environ: Mapping[str, str]) -> bool:
    """Tell whether the terminal wraps what stands there anew when it is made narrower, as all but a few do."""
    if "TMUX" in environ:
        return True
    return not ("XTERM_VERSION" in environ or "STY" in environ or environ.get("TERM") == "linux")
