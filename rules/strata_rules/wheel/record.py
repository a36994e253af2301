"""RECORD files: what a wheel says it holds, and what a layer says it installed.

It knows no zip and no tree: rows in, rows out, on top of `installer.records`. The hard part is trust: a hash counts
only where its algorithm is strong, and a path that is listed twice must be listed alike.

The package is imported when it is called: builds that unpack and install nothing would pay for it too.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic

if TYPE_CHECKING:
    from installer.records import RecordEntry

Row: TypeAlias = "RecordEntry"

STRONG = frozenset({"sha256", "sha384", "sha512"})
"""What the specification of RECORD allows: anything newer or older is not verified but refused."""

SIGNATURES = ("RECORD.jws", "RECORD.p7s")
"""Files beside RECORD that it cannot list, because they sign it."""


def bad(wheel: str, what: str, notes: tuple[str, ...] = ()) -> Diagnostic:
    """Say what is wrong with a wheel's RECORD; names of members stand in `what`."""
    return Diagnostic(
        "bad-record",
        f"`{wheel}`: {what}",
        None,
        notes,
        "the wheel is damaged or was changed after it was built: take another build or version of it",
    )


def parse(data: bytes, wheel: str) -> tuple[dict[str, Row], list[Diagnostic]]:
    """Read a RECORD into its rows by path, with everything that is wrong with them (`bad-record`)."""
    from installer.records import InvalidRecordEntry, RecordEntry, parse_record_file  # noqa: PLC0415 - see the docstring at the top

    rows: dict[str, Row] = {}
    wrong: list[Diagnostic] = []
    try:
        # Not splitlines(): it would also break a file name at the line ends that only Unicode knows.
        for elements in parse_record_file(io.StringIO(data.decode("utf-8"), newline="")):
            try:
                entry = RecordEntry.from_elements(*elements)
            except InvalidRecordEntry as error:
                wrong.append(bad(wheel, f"the row of `{elements[0]}` in RECORD is not valid: {error}"))
                continue
            # Some wheels list absolute paths (selenium does); installers take them as relative ones.
            entry.path = entry.path.lstrip("/")
            if entry.path.endswith("/"):
                continue
            if rows.setdefault(entry.path, entry) != entry:
                wrong.append(bad(wheel, f"RECORD lists `{entry.path}` twice, with different hashes"))
    except UnicodeDecodeError:
        wrong.append(bad(wheel, "RECORD is not UTF-8"))
    except (InvalidRecordEntry, csv.Error) as error:
        wrong.append(bad(wheel, f"RECORD cannot be read: {error}"))
    return rows, wrong


def weakness(entry: Row) -> str | None:
    """Say why a row proves nothing about its file; None where it does."""
    if entry.hash_ is None:
        return f"RECORD gives no hash of `{entry.path}`"
    if entry.hash_.name not in STRONG:
        return f"RECORD hashes `{entry.path}` with `{entry.hash_.name}`; expected {', '.join(sorted(STRONG))}"
    return None


def matches(entry: Row, digest: Digest, open_: Callable[[], BinaryIO]) -> bool:
    """Tell whether a file is what its row says; it is opened only where the row's hash is not SHA-256."""
    if entry.size is not None and entry.size != digest.size:
        return False
    if entry.hash_ is not None and entry.hash_.name == "sha256":
        return entry.hash_.value.rstrip("=") == _encoded(digest)
    with open_() as stream:
        return entry.validate_stream(stream)


def row(path: str, digest: Digest | None = None) -> Row:
    """Make the row of a file; without a digest, RECORD's own."""
    from installer.records import Hash, RecordEntry  # noqa: PLC0415 - see the docstring at the top

    if digest is None:
        return RecordEntry(path, None, None)
    return RecordEntry(path, Hash("sha256", _encoded(digest)), digest.size)


def render(rows: Iterable[Row]) -> bytes:
    """Write a RECORD: one row per file, sorted by path, so that equal files give equal bytes."""
    from installer.utils import Scheme, construct_record_file  # noqa: PLC0415 - see the docstring at the top

    with construct_record_file((Scheme("purelib"), entry) for entry in rows) as stream:
        return stream.read()


def _encoded(digest: Digest) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(digest.hash)).rstrip(b"=").decode("ascii")
