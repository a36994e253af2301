"""RECORD: read with suspicion, written one way."""

from __future__ import annotations

import base64
import hashlib
import io

from strata_engine.digest import Digest
from strata_rules.wheel import record


def test_what_is_written_is_read_back_sorted():
    digest = Digest.of(b"text")
    paths = ["b,comma.py", 'a"quote.py', "../../../bin/tool", "ünï.py", "a/z.py"]
    own, listed = record.row("x.dist-info/RECORD"), [record.row(path, digest) for path in paths]
    written = record.render([own, *listed])
    assert written == record.render([*reversed(listed), own])
    rows, wrong = record.parse(written, "x.whl")
    assert wrong == []
    assert list(rows) == sorted([*paths, "x.dist-info/RECORD"])
    assert record.matches(rows["a/z.py"], digest, io.BytesIO)
    assert rows["x.dist-info/RECORD"].hash_ is None


def test_line_ends_that_only_unicode_knows_are_part_of_a_name():
    rows, wrong = record.parse("a\u2028b\x85.py,sha256=x,1\r\n".encode(), "x.whl")
    assert wrong == []
    assert list(rows) == ["a\u2028b\x85.py"]


def test_all_bad_rows_are_told_at_once():
    rows, wrong = record.parse(b"a,nohash,1\nb,sha256=x,y\n,sha256=x,1\nc,sha256=x,1\n", "x.whl")
    assert len(wrong) == 3
    assert list(rows) == ["c"]
    assert {diagnostic.id for diagnostic in wrong} == {"bad-record"}


def test_a_hash_that_is_not_sha256_is_checked_against_the_bytes():
    rows, _ = record.parse(f"a,{_sha512(b'text')},4\n".encode(), "x.whl")
    assert record.matches(rows["a"], Digest.of(b"text"), lambda: io.BytesIO(b"text"))
    assert not record.matches(rows["a"], Digest.of(b"tex!"), lambda: io.BytesIO(b"tex!"))


def _sha512(data: bytes) -> str:
    return "sha512=" + base64.urlsafe_b64encode(hashlib.sha512(data).digest()).rstrip(b"=").decode()
