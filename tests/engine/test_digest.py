from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest

from strata_engine.digest import (
    ABSENT,
    CHUNK,
    EMPTY,
    Digest,
    DigestWriter,
    Stamp,
    content_mtime,
    digest_file,
    digest_stream,
    racy,
    stamp,
)

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_digest_is_sha256_and_size() -> None:
    assert Digest.of(b"abc") == Digest(ABC, 3)
    assert str(Digest.of(b"abc")) == f"{ABC}/3"
    assert Digest.parse(f"{ABC}/3") == Digest.of(b"abc")
    assert EMPTY == Digest.of(b"") == DigestWriter().digest()


def test_every_way_to_name_bytes_gives_one_name(tmp_path: Path) -> None:
    data = b"x" * (CHUNK + 7)
    (tmp_path / "f").write_bytes(data)
    writer = DigestWriter()
    for start in range(0, len(data), 100_000):
        writer.update(memoryview(data)[start : start + 100_000])
    assert digest_file(tmp_path / "f") == writer.digest() == digest_stream(io.BytesIO(data)) == Digest.of(data)


@pytest.mark.parametrize(
    "text",
    [
        "", ABC, f"{ABC}/", f"{ABC}/-1", f"{ABC}/+1", f"{ABC}/1.0", f"{ABC}/ 1", f"{ABC}/1/1", f"{ABC}/٣",
        f"{ABC.upper()}/3", f"{ABC[:-1]}/3", f"{ABC}0/3", f"{ABC[:-1]}g/3", f"../{ABC[3:]}/3", f"/{ABC}/3",
        f"{ABC}\n/3",
    ],
)  # fmt: skip
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a digest"):
        Digest.parse(text)


def test_times_come_from_content_and_fit_every_archive_format() -> None:
    low, high = content_mtime(Digest("0" * 64, 0)), content_mtime(Digest("f" * 64, 0))
    assert time.gmtime(low).tm_year == 2001
    assert time.gmtime(high).tm_year == 2018
    times = [content_mtime(Digest.of(bytes([n]))) for n in range(100)]
    assert len(set(times)) == 100
    assert not any(moment % 2 for moment in times)


def test_stamps_tell_presence_absence_and_change(tmp_path: Path) -> None:
    path = tmp_path / "f"
    assert stamp(path) == stamp(path / "below") == stamp(f"{path}\0") == stamp(path / ("n" * 300)) == ABSENT
    path.write_text("one")
    before = stamp(path)
    assert (before.size, before.mtime_ns) == (3, path.stat().st_mtime_ns)
    assert stamp(path / "below") == ABSENT
    os.utime(path, ns=(0, 5))
    assert stamp(path).mtime_ns == 5
    (tmp_path / "link").symlink_to(path)
    assert stamp(tmp_path / "link") == stamp(path)
    path.unlink()
    assert stamp(tmp_path / "link") == ABSENT


def test_what_cannot_be_looked_at_is_not_absent(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="loop"):
        stamp(tmp_path / "loop")


NOW = 1_700_000_000_123_456_789


@pytest.mark.parametrize(
    ("mtime", "ctime", "is_racy"),
    [
        (NOW - 10**10, NOW - 1_000_000, True),  # just changed, its mtime set back afterwards
        (NOW + 10**15, NOW - 10**9 - 7, False),  # an mtime in the future hides nothing, and must not be waited for
        (NOW // 10**9 * 10**9, NOW - 30_000_000, False),  # whole seconds in an mtime are no coarse clock
        (NOW, NOW // 10**9 * 10**9, True),  # in a ctime they are
        (NOW, NOW // 10**9 * 10**9 - 3 * 10**9, False),
        (NOW, NOW + 1_000_000, True),  # a file server's clock that is ahead
        (NOW, NOW + 10**12 + 7, False),  # a clock that was set back: any change will show
    ],
)
def test_only_a_recent_ctime_is_racy(mtime: int, ctime: int, is_racy: bool) -> None:
    assert racy(Stamp(1, 1, mtime, ctime), NOW) is is_racy
    assert not racy(ABSENT, NOW)
