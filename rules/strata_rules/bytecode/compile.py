"""Compiles modules for the interpreter that runs this: `python -S compile.py REQUEST ANSWER`.

It is no part of the program that builds: it runs where only a runtime is, and uses the standard library alone. It
executes nothing of what it compiles. REQUEST is a row of records, each a name, a source and before them both lengths.
ANSWER is a row of records, each a length and that many bytes: first the tag in the names of bytecode files, then for
each source its bytecode file, or nothing where it does not compile.

Hard part: the same request must give the same bytes. `marshal` marks an object for later reference where its reference
count is greater than one, and names are shared with whatever else the process has loaded; so a module's objects are
all held while it is written, and all of them are marked. It also tells strings that are interned, which depends on
the modules before; so there is one process for a request, and the order is the request's.
"""

from __future__ import annotations

import importlib.util
import marshal
import struct
import sys
from io import BufferedWriter
from types import CodeType

REQUEST = struct.Struct("<IQ")
ANSWER = struct.Struct("<Q")
UNCHECKED = struct.pack("<L", 0b01)
"""The flags of bytecode that is taken for its source's without a look at it (PEP 552)."""

PARTS = (
    "co_code", "co_consts", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_filename", "co_name",
    "co_qualname", "co_linetable", "co_exceptiontable",
)  # fmt: skip
"""What a code object is written as; which of them there are depends on the version."""


def main(request: str, answer: str) -> None:
    """Answer a request."""
    with open(request, "rb") as sources, open(answer, "wb") as out:  # noqa: PTH123 - pathlib takes longer to import
        write(out, str(sys.implementation.cache_tag).encode())
        while head := sources.read(REQUEST.size):
            name, source = REQUEST.unpack(head)
            write(out, bytecode(sources.read(name).decode(), sources.read(source)))


def write(out: BufferedWriter, data: bytes) -> None:
    """Write a record to its end: the next source may end this process."""
    out.write(ANSWER.pack(len(data)) + data)
    out.flush()


def bytecode(name: str, source: bytes) -> bytes:
    """Give the bytecode file of a module, nothing where there can be none."""
    try:
        code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    except Exception:
        # Whatever is wrong with it, importing it says so.
        return b""
    held = reachable(code)
    if not is_ordered(held):
        return b""
    return importlib.util.MAGIC_NUMBER + UNCHECKED + importlib.util.source_hash(source) + marshal.dumps(code)


def reachable(code: object) -> list[object]:
    """List all objects that a code object is written as."""
    found = [code]
    for each in found:
        if isinstance(each, CodeType):
            found += [getattr(each, part) for part in PARTS if hasattr(each, part)]
        elif isinstance(each, (tuple, frozenset)):
            found += each
        elif isinstance(each, slice):
            found += [each.start, each.stop, each.step]
    return found


def is_ordered(found: list[object]) -> bool:
    """Tell whether sets among constants are written in an order that is always the same.

    Before 3.11 they are written in the order of hashes, and some things are hashed by where they are in memory.
    """
    if sys.hexversion >= 0x030B0000:
        return True
    sets = [each for each in found if isinstance(each, frozenset)]
    return all(isinstance(member, (str, bytes, int, float)) for each in sets for member in each)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
