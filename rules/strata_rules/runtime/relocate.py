"""Frees a captured file of the prefix it was installed with: RUNPATHs, recorded paths, a distribution's patches.

Pure functions from bytes to bytes; what cannot be made relocatable is refused with a reason.

The hard part is the RUNPATH. Its text lies in the dynamic string table and is overwritten where it stands, so the new
one must not be longer. Linkers let a shorter string share the end of a longer one; so the last path component of the
old text stays where it was, behind the new text's end: what may share it (a symbol called `lib`) is still whole.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

MAGIC = b"\x7fELF"
PLACEHOLDER = "/install"
"""What recorded paths say instead of the old prefix, as python-build-standalone has it."""

SYSTEM_PREFIXES = frozenset({"/", "/usr"})
"""Prefixes whose libraries are the system's."""

SHARED_PREFIXES = SYSTEM_PREFIXES | {"/usr/local", "/opt", "/opt/local"}
"""Prefixes that texts name for other reasons: `/usr/share/zoneinfo` must stay what it is."""

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_STRTAB, _DT_STRSZ, _DT_RPATH, _DT_RUNPATH = 5, 10, 15, 29


class NotRelocatable(Exception):  # noqa: N818 - the caller says it as an action's error
    """A file that cannot be moved; the text says why."""


class _Text(NamedTuple):
    """A string of the dynamic string table."""

    offset: int
    value: bytes


def set_runpath(data: bytes, replace: Callable[[str], str]) -> bytes:
    """Rewrite each entry of an ELF file's RUNPATH and RPATH; anything but an ELF file comes back as it is.

    Raises NotRelocatable where the new text is longer than the old one, or the file is damaged.
    """
    if not data.startswith(MAGIC):
        return data
    try:
        texts = _search_paths(data)
    except (struct.error, ValueError, IndexError) as error:
        raise NotRelocatable(f"its ELF headers cannot be read ({error})") from error
    out = bytearray(data)
    for text in texts:
        old = text.value.decode("utf-8", "surrogateescape")
        new = ":".join(dict.fromkeys(replace(entry) for entry in old.split(":")))
        if new != old:
            raw = new.encode("utf-8", "surrogateescape")
            out[text.offset : text.offset + len(text.value)] = _overwrite(text.value, raw)
    return bytes(out)


def _overwrite(old: bytes, new: bytes) -> bytes:
    if len(new) > len(old):
        raise NotRelocatable(f"its RUNPATH `{old.decode(errors='replace')}` is too short to become `{new.decode()}`")
    room = len(old) - len(new) - 1
    tail = old.rpartition(b"/")[2]
    if 0 < len(tail) <= room:
        return new + bytes(len(old) - len(new) - len(tail)) + tail
    return new + bytes(len(old) - len(new))


def _search_paths(data: bytes) -> list[_Text]:
    """Find the RUNPATH and RPATH as the loader does: program headers, dynamic segment, string table."""
    wide, order = data[4] == 2, "<" if data[5] == 1 else ">"
    if wide:
        phoff, phentsize, phnum = (
            *struct.unpack_from(order + "Q", data, 32),
            *struct.unpack_from(order + "HH", data, 54),
        )
    else:
        phoff, phentsize, phnum = (
            *struct.unpack_from(order + "I", data, 28),
            *struct.unpack_from(order + "HH", data, 42),
        )
    loads: list[tuple[int, int, int]] = []
    dynamic: tuple[int, int] | None = None
    for index in range(phnum):
        at = phoff + index * phentsize
        kind = struct.unpack_from(order + "I", data, at)[0]
        if wide:
            offset, address, _, size = struct.unpack_from(order + "QQQQ", data, at + 8)
        else:
            offset, address, _, size = struct.unpack_from(order + "IIII", data, at + 4)
        if kind == _PT_LOAD:
            loads.append((address, offset, size))
        elif kind == _PT_DYNAMIC:
            dynamic = (offset, size)
    if dynamic is None:
        return []
    tags = _tags(data, dynamic, order, wide=wide)
    values = dict(tags)
    wanted = [value for tag, value in tags if tag in {_DT_RPATH, _DT_RUNPATH}]
    if not wanted:
        return []
    strings = next(
        off + values[_DT_STRTAB] - addr for addr, off, size in loads if 0 <= values[_DT_STRTAB] - addr < size
    )
    return [_string(data, strings, values.get(_DT_STRSZ, 0), value) for value in dict.fromkeys(wanted)]


def _tags(data: bytes, place: tuple[int, int], order: str, *, wide: bool) -> list[tuple[int, int]]:
    step, layout = (16, order + "qQ") if wide else (8, order + "iI")
    tags: list[tuple[int, int]] = []
    for at in range(place[0], place[0] + place[1], step):
        tag, value = struct.unpack_from(layout, data, at)
        if tag == 0:
            break
        tags.append((tag, value))
    return tags


def _string(data: bytes, strings: int, size: int, value: int) -> _Text:
    if not 0 <= value < size:
        raise ValueError("a search path lies outside the string table")
    start = strings + value
    return _Text(start, data[start : data.index(b"\0", start, strings + size)])


def without_prefix(path: str, data: bytes, prefix: str) -> bytes:
    """Replace the old prefix in texts that record it; a shared prefix in the paths of `_sysconfigdata` alone."""
    name = path.rpartition("/")[2]
    if prefix not in SHARED_PREFIXES:
        text = not data.startswith(MAGIC) and b"\0" not in data[:8192]
        end = rb"(?![\w.-])"  # `/opt/python` is no prefix of `/opt/python3`
        return re.sub(re.escape(prefix.encode()) + end, PLACEHOLDER.encode(), data) if text else data
    if name.startswith("_sysconfigdata") and name.endswith(".py"):
        return _SYSCONFIG_LINE.sub(
            lambda match: match[1] + re.sub(rb"(?<![\w/.-])/usr(?=/|$)", PLACEHOLDER.encode(), match[2]) + match[3],
            data,
        )
    return data


_SYSCONFIG_KEYS = (
    "BINDIR|BINLIBDEST|CONFINCLUDEDIR|CONFINCLUDEPY|DESTDIRS|DESTLIB|DESTSHARED|INCLDIRSTOMAKE|INCLUDEDIR|INCLUDEPY"
    "|LIBDEST|LIBDIR|LIBP|LIBPC|LIBPL|MACHDESTLIB|MANDIR|SCRIPTDIR|datarootdir|exec_prefix|prefix"
)
_SYSCONFIG_LINE = re.compile(
    rf"""^((?:build_time_vars = )?[ {{]*'(?:{_SYSCONFIG_KEYS})': ['"])([^'"\n]*)(['"])""".encode(), re.MULTILINE
)


def without_distribution(path: str, data: bytes) -> bytes:
    """Undo what Debian and its kin change in `sysconfig`: packages go to `lib/pythonX.Y/site-packages` again.

    `path` is relative to the standard library.
    """
    return _SCHEME.sub(rb"\1'posix_prefix'", data) if path in {"sysconfig.py", "sysconfig/__init__.py"} else data


_SCHEME = re.compile(rb"^(\s*prefix_scheme = )'posix_local'", re.MULTILINE)


def looks_elsewhere(site: bytes) -> bool:
    """Tell whether this `site.py` looks for packages in `dist-packages`, as Debian's does outside of environments.

    To patch the file would not help: since 3.11 `site` is frozen into the interpreter. So such a runtime gets a link
    `lib/pythonX.Y/dist-packages`, which is among the folders that it looks at. (A `sitecustomize.py` in the standard
    library would do too, but take that name from the user.)
    """
    return b'"dist-packages"' in site
