from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from strata_engine.digest import Digest
from strata_engine.locks import KeyLocks

ONE, TWO = Digest.of(b"1"), Digest.of(b"2")


def test_a_key_is_held_by_one_build_and_keys_do_not_disturb_each_other(tmp_path: Path) -> None:
    first, second = KeyLocks(tmp_path / "locks"), KeyLocks(tmp_path / "locks")
    assert first.take(ONE)
    assert not second.take(ONE)
    assert second.take(TWO)
    assert not first.take(TWO)
    first.release([ONE])
    assert second.take(ONE)
    second.close()
    assert first.take(ONE)
    assert first.take(TWO)
    first.close()
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]
    assert (tmp_path / "locks").stat().st_size <= 2


def test_other_processes_are_kept_out_until_the_holder_dies(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from strata_engine.digest import Digest\n"
        "from strata_engine.locks import KeyLocks\n"
        "locks = KeyLocks(Path(sys.argv[1])); print(locks.take(Digest.of(b'1')), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path / "locks"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        mine = KeyLocks(tmp_path / "locks")
        assert not mine.take(ONE)
        # What is opened and closed here does not let go of what others hold.
        KeyLocks(tmp_path / "locks").close()
        assert not mine.take(ONE)
        holder.kill()
    assert mine.take(ONE)


def test_no_lock_file_means_no_waiting(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path / "none" / "locks")
    assert locks.take(ONE)
    locks.release([ONE])
    locks.close()


def test_who_is_alone_knows_it(tmp_path: Path) -> None:
    first = KeyLocks(tmp_path / "locks")
    assert first.alone() is (sys.platform == "linux")
    second = KeyLocks(tmp_path / "locks")
    assert not first.alone()
    assert not second.alone()
    # Who has gone may have made something.
    second.close()
    assert not first.alone()
    third = KeyLocks(tmp_path / "locks")
    first.close()
    assert not third.alone()
    third.close()
    assert KeyLocks(tmp_path / "locks").alone() is (sys.platform == "linux")
    assert not KeyLocks(tmp_path / "none" / "locks").alone()
