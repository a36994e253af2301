"""Locks and pins that do not fit: `--locked` says why; a broken or edited one is said, and never quietly believed."""

from __future__ import annotations

import shutil

from refusals import refused
from runtimes import OWN
from space import Space

from strata_rules.platforms import host_platform

HOST = host_platform()

LOW = "requirements/framework-low/pylock.framework-low.toml"
PIN = "requirements/python/runtime.python.json"


def locked(label: str, place: str, *notes: str) -> str:
    """Give what `--locked` says."""
    said = f"error[locked]: `{label}` would have to run, which `--locked` forbids\n{place}"
    return (
        said + "".join(f"note: {note}\n" for note in notes) + "hint: run without `--locked` and commit what it writes\n"
    )


LOW_PLACE = """\
  --> venvstacks.toml:9:16
   |
 9 | requirements = ["alpha", "beta"]
   |                ^^^^^^^^^^^^^^^^^
"""


def test_requirements_that_are_not_locked(built: Space) -> None:
    built.replace("venvstacks.toml", '["gamma"]', '["gamma", "beta"]')
    place = """\
   --> venvstacks.toml:14:16
    |
 14 | requirements = ["gamma", "beta"]
    |                ^^^^^^^^^^^^^^^^^
"""
    why = "the requirements of `framework-up` have changed since it was locked: `beta` is required now"
    assert refused(built, "build", "--locked", "-q", code=2) == locked("framework-up/lock", place, why)
    built.replace("venvstacks.toml", '["gamma", "beta"]', '["gamma"]')
    assert built.build("--locked").counts["executed"] == 0


def test_a_wheel_that_is_another_one_by_now(built: Space) -> None:
    wheel = built.root / "wheels" / "alpha-1.0-py3-none-any.whl"
    before = wheel.read_bytes()
    built.wheel("alpha", {"alpha.py": b"NAME = 'another'\n"})
    why = f"`wheels/{wheel.name}` is not the wheel that `framework-low` was locked with"
    assert refused(built, "build", "--locked", "-q", code=2) == locked("framework-low/lock", LOW_PLACE, why)
    wheel.write_bytes(before)
    assert built.build("--locked").counts["executed"] == 0


def test_a_missing_lock(built: Space) -> None:
    shutil.rmtree(built.root / "requirements/framework-low")
    why = "`framework-low` has no lock (`pylock.framework-low.toml`)"
    assert refused(built, "build", "--locked", "-q", code=2) == locked("framework-low/lock", LOW_PLACE, why)
    # Its answer is still known here.
    assert built.build().counts["executed"] == 0
    assert (built.root / LOW).exists()


def test_a_lock_that_was_edited(built: Space) -> None:
    before = built.read(LOW)
    for edited in (before.replace('version = "1.0"\n', 'version = "9.9"\n', 1), "<<<<<<< not TOML any more\n"):
        built.write(LOW, edited)
        why = "the lock of `framework-low` was changed by hand (`pylock.framework-low.toml`)"
        assert refused(built, "build", "--locked", "-q", code=2) == locked("framework-low/lock", LOW_PLACE, why)
        ran = built.ok("build", "--json")
        assert ran.stderr.startswith(
            "warning[lock-edited]: the lock of `framework-low` was changed by hand: it is made anew, keeping the"
            f" versions that fit\n  --> {LOW}\n"
            "hint: say what you want in the stack file; `--locked` refuses such a lock instead\n"
        )
        assert ran.counts["executed"] == 0
        assert built.read(LOW) == before


def test_a_pin_that_cannot_be_read(built: Space) -> None:
    before = built.read(PIN)
    for data, why in {
        "{": "Input data was truncated",
        before.replace('"version": 1', '"version": 2'): "its version is 2, this Strata reads version 1",
    }.items():
        built.write(PIN, data)
        assert refused(built, "build", "-q", code=2) == (
            f"error[bad-runtime-pin]: this runtime pin cannot be read: {why}\n  --> {PIN}\n"
            "hint: take it from git again, or remove it: the next build pins the runtime anew\n"
        )
    (built.root / PIN).unlink()
    assert refused(built, "build", "--locked", "-q", code=2) == (
        f"error[runtime-not-pinned]: `python` has no fitting runtime pin for `{HOST}`, which `--locked` needs\n"
        f'  --> venvstacks.toml:3:25\n   |\n 3 | python_implementation = "cpython@{OWN}"\n'
        f"   |                         {'^' * (len(OWN) + 10)}\n"
        "note: it is not pinned\nhint: run without `--locked` and commit `runtime.python.json`\n"
    )
    assert built.build().counts["executed"] == 0
    assert built.read(PIN) == before


def test_requirements_that_cannot_be_met(built: Space) -> None:
    built.replace("venvstacks.toml", '["gamma"]', '["gamma", "alpha>=2"]')
    assert (
        refused(built, "lock", "-q", code=2)
        == """\
error[no-solution]: cannot lock `framework-up`: its requirements cannot be met together
   --> venvstacks.toml:14:16
    |
 14 | requirements = ["gamma", "alpha>=2"]
    |                ^^^^^^^^^^^^^^^^^^^^^
note: Because the layer depends on alpha>=2 and alpha==1.0, we can conclude that the layer's requirements are \
unsatisfiable.
hint: relax a requirement here, or a pin of a layer below (`strata lock --upgrade` moves pins)
note: `framework-up/lock` ran because of parameter-changed requirements: ["gamma"] → ["alpha>=2", "gamma"]
"""
    )
    built.replace("venvstacks.toml", '["gamma", "alpha>=2"]', '["gamma"]')
    assert built.build().counts["executed"] == 0


def test_no_wheel_for_a_target_platform(built: Space) -> None:
    (built.root / "wheels" / "beta-1.0-py3-none-any.whl").unlink()
    built.wheel("beta", tag="py3-none-win_arm64")
    runtime = 'runtime = "python"\n'
    built.replace("venvstacks.toml", runtime, f'{runtime}platforms = ["{HOST}", "win_arm64"]\n')
    assert refused(built, "lock", "-q", code=2).startswith(f"""\
error[no-wheel]: `beta` 1.0 has no wheel for `{HOST}`
   --> venvstacks.toml:10:16
    |
 10 | requirements = ["alpha", "beta"]
    |                ^^^^^^^^^^^^^^^^^
note: there are wheels for py3-none-win_arm64
hint: narrow the layer with `platforms = ["win_arm64"]`, or require another version of `beta`
""")


def test_settings_that_uv_does_not_know(built: Space) -> None:
    for setting, said in {
        'resolutoin = "lowest"': """\
error[bad-uv-settings]: uv has no setting `resolutoin`
   --> venvstacks.toml:30:1
    |
 30 | resolutoin = "lowest"
    | ^^^^^^^^^^
hint: did you mean `resolution`?
""",
        'resolution = "lowst"': """\
error[bad-uv-settings]: uv does not accept `resolution`: unknown variant `lowst`
   --> venvstacks.toml:30:14
    |
 30 | resolution = "lowst"
    |              ^^^^^^^
hint: did you mean `lowest`?
""",
    }.items():
        built.replace("venvstacks.toml", "no-index = true\n", f"no-index = true\n{setting}\n")
        assert refused(built, "build", "-q", code=2).startswith(said)
        built.replace("venvstacks.toml", f"{setting}\n", "")
