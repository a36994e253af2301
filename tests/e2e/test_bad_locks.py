"""Locks and pins that do not fit: `--locked` says why; a broken or edited one is said, and never quietly believed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from refusals import refused
from runtimes import OWN
from space import Space
from venvstacks_stack import make_repository

from strata_rules.platforms import PLATFORMS, host_platform

HOST = host_platform()

LOW = "requirements/framework-low/pylock.framework-low.toml"
LOW_RECORD = "requirements/framework-low/pylock.framework-low.meta.json"
UP = "requirements/framework-up/pylock.framework-up.toml"
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
    built.write(LOW, before.replace('"beta"\nversion = "1.0"\n', '"beta"\nversion = "1.0.0"\n'))
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


RESTORE = "hint: take it from git again, or have it made anew with `strata lock --upgrade`\n"
TAKE_A_SIDE = (
    "hint: take either side, as with `git checkout --ours` and its path; `strata lock` then makes what fits both\n"
)
RESTORE_RECORD = "hint: take it from git again, or have the layer locked anew with `strata lock --upgrade`\n"


def test_a_lock_that_cannot_be_read_is_never_replaced_unasked(built: Space) -> None:
    before = built.read(LOW)
    conflict = before.replace("\n[[packages]]", "\n<<<<<<< HEAD\n[[packages]]", 1)
    line = conflict.splitlines().index("<<<<<<< HEAD") + 1
    for data, place, what in (
        (conflict.encode(), f"{LOW}:{line}:1", "has git's conflict markers in it"),
        (conflict.replace("<<<<<<< HEAD", "either side").encode(), f"{LOW}:{line}:", "is not TOML: Expected"),
        (before.encode()[:-20], None, "is not TOML: "),
        (b"\xff" + before.encode(), LOW, "is not UTF-8"),
        (b"x = " + b"[" * 9000, LOW, "is nested too deeply"),
        (b"x = 1" + b"0" * 9000, LOW, "has a number that no lock has"),
    ):
        path = built.write(LOW, data)
        said = refused(built, "build", "-q", code=2)
        assert said.startswith(f"error[bad-lock]: the lock {what}")
        assert f"\n  --> {place or LOW}" in said
        assert (TAKE_A_SIDE if data == conflict.encode() else RESTORE) in said
        assert path.read_bytes() == data
    assert refused(built, "lock", "-q", code=2) == refused(built, "build", "--locked", "-q", code=2) == said
    statuses = {layer["name"]: layer["has_valid_lock"] for layer in built.ok("show", "--json").json["frameworks"]}
    assert statuses == {"framework-low": False, "framework-up": False}
    built.ok("lock", "--upgrade", "-q")
    assert built.read(LOW) == before
    assert built.build("--locked").counts["executed"] == 0


def test_a_record_that_cannot_be_read_is_never_replaced_unasked(built: Space) -> None:
    before = built.read(LOW_RECORD)
    whole = json.loads(before)
    for data, what in (
        (before.encode()[:-20], "is not JSON: Input data was truncated"),
        (b'{"lock_version": NaN}', "is not JSON: "),
        (b"[" * 9000, "is nested too deeply"),
        (json.dumps(whole | {"lock_version": "one"}).encode(), "is not what it should be: Expected `int | null`"),
        (json.dumps(whole | {"locked_at": "soon"}).encode(), "has a `locked_at` that is no date and time"),
    ):
        path = built.write(LOW_RECORD, data)
        said = refused(built, "build", "-q", code=2)
        assert said.startswith(f"error[bad-lock-record]: what is recorded of this lock {what}")
        assert f"\n  --> {LOW_RECORD}\n{RESTORE_RECORD}" in said
        assert path.read_bytes() == data
    (built.root / LOW_RECORD).unlink()
    (built.root / LOW_RECORD).mkdir()
    assert refused(built, "build", "-q", code=2).startswith(
        f"error[not-a-file]: `{LOW_RECORD}` is not a file\n  --> {LOW_RECORD}\nhint: move it out of the way\n"
    )
    (built.root / LOW_RECORD).rmdir()
    assert built.build().counts["executed"] == 0
    assert json.loads(built.read(LOW_RECORD)) == whole | {"locked_at": json.loads(built.read(LOW_RECORD))["locked_at"]}


def test_a_wheel_of_a_lock_lies_where_wheels_may_lie(built: Space) -> None:
    """What a lock says of where its wheels are leads nowhere but into the workspace and the folders of wheels."""
    text = built.read(LOW)
    wheel = built.root.parent / "alpha-1.0-py3-none-any.whl"
    shutil.copy(built.root / "wheels" / wheel.name, wheel)
    record = json.loads(built.read(LOW_RECORD))
    del record["strata"]
    built.write(LOW, text.replace("../../wheels/alpha", "../../../alpha").replace('"strata"', '"uv"'))
    built.write(LOW_RECORD, json.dumps(record))
    shutil.rmtree(built.store)
    said = refused(built, "build", "-q", code=2)
    assert said.startswith(f"error[wheel-outside]: the lock takes `{wheel.name}` from outside the workspace")
    # A repository may keep its wheels beside its stacks: venvstacks' `build` asks no one to name their folder again.
    make_repository(built.root.parent)
    assert built.build().labels("failed") == set()
    built.write(LOW, built.read(LOW).replace("../../../alpha", "../../../../alpha"))
    wheel.rename(built.root.parents[1] / wheel.name)
    shutil.rmtree(built.store)
    assert refused(built, "build", "-q", code=2).startswith("error[wheel-outside]: ")


def told(stderr: str, id: str) -> dict[str, list[str]]:
    """Give the notes of all diagnostics of a kind, by the layer that the first line names."""
    found: dict[str, list[str]] = {}
    notes: list[str] = []
    for line in stderr.splitlines():
        if f"[{id}]: " in line:
            notes = found.setdefault(line.partition("`")[2].partition("`")[0].removesuffix("/lock"), [])
        elif line.startswith("note: "):
            notes.append(line.removeprefix("note: "))
    return found


def test_all_stale_locks_are_told_at_once(built: Space) -> None:
    built.replace("venvstacks.toml", '["gamma"]', '["gamma", "beta"]')
    built.replace("venvstacks.toml", '["zeta"]', '["zeta", "gamma"]')
    built.replace("venvstacks.toml", "no-index = true\n", 'no-index = true\nresolution = "lowest"\n')
    setting = "uv's setting `resolution` is new"
    reasons = {
        "framework-low": [setting],
        "framework-up": [
            "the requirements of `framework-up` have changed since it was locked: `beta` is required now",
            setting,
        ],
        "app-world": [
            "the requirements of `app-world` have changed since it was locked: `gamma` is required now",
            setting,
        ],
    }
    before = {path: path.read_bytes() for path in built.root.glob("requirements/*/*")}
    for command, code, kind in ((("build", "--locked"), 2, "locked"), (("lock", "--check"), 4, "stale-lock")):
        said = built.strata(*command)
        assert said.code == code
        assert told(said.stderr, kind) == reasons
    assert {path: path.read_bytes() for path in built.root.glob("requirements/*/*")} == before


@pytest.mark.parametrize(
    ("old", "new", "reasons"),
    [
        (
            'requirements = ["gamma"]\n',
            f'requirements = ["gamma"]\nplatforms = ["{HOST}"]\n',
            [f"its platforms were {', '.join(f'`{name}`' for name in sorted(PLATFORMS))} and are `{HOST}`"],
        ),
        (
            'requirements = ["gamma"]\n',
            'requirements = ["gamma"]\nlinux_target = "glibc@2.31"\n',
            ["its `linux_target` was `glibc@2.28` and is `glibc@2.31`"],
        ),
        (
            'requirements = ["gamma"]\n',
            'requirements = ["gamma"]\npackage_indexes = { gamma = "own" }\n',
            ["the index `own` is new", "`gamma` came from no index of its own and comes from the index `own`"],
        ),
        (
            'requirements = ["gamma"]\n',
            'requirements = ["gamma"]\npriority_indexes = ["own"]\n',
            ["the index `own` is new"],
        ),
        (
            'frameworks = ["low"]\n',
            'runtime = "python"\n',
            [
                "`framework-low` is no longer below it",
                "`alpha` 1.0 is to come from a layer below it, and none has it",
            ],
        ),
    ],
)
def test_each_part_of_what_is_asked_is_named(space: Space, old: str, new: str, reasons: list[str]) -> None:
    """venvstacks notices two of these five (its reference, row 7)."""
    index = '\n[[tool.uv.index]]\nname = "own"\nurl = "https://own.invalid/simple"\nexplicit = true\n'
    space.write("venvstacks.toml", space.read("venvstacks.toml") + index)
    assert space.strata("lock", "--check").code == 0
    space.replace("venvstacks.toml", old, new)
    said = space.strata("lock", "--check")
    assert said.code == 4
    assert told(said.stderr, "stale-lock")["framework-up"] == reasons


def test_a_lower_lock_that_is_updated_alone(built: Space, tmp_path: Path) -> None:
    """What git makes of two branches: venvstacks believes that the upper lock is still right (its reference, row 8)."""
    other = built.copy(tmp_path / "other")
    other.replace("venvstacks.toml", '["alpha", "beta"]', '["alpha<1", "beta"]')
    other.ok("lock", "-q")
    for path in (other.root / LOW).parent.iterdir():
        built.write(f"requirements/framework-low/{path.name}", path.read_bytes())
    built.write("venvstacks.toml", other.read("venvstacks.toml"))
    said = refused(built, "build", "--locked", "-q", code=2)
    assert "error[locked]: `framework-up/lock` would have to run" in said
    assert "note: `framework-low` below it has other packages now\n" in said
    assert "note: `alpha` 1.0 is to come from a layer below it, and `framework-low` has 0.9\n" in said
    assert "framework-low/lock" not in said
    built.build()
    assert built.read(UP) == other.read(UP)


def test_a_pin_that_cannot_be_read(built: Space) -> None:
    before = built.read(PIN)
    for data, why in {
        "{": "Input data was truncated",
        '{"platforms": {"x": {"interpreter": ' + "[" * 5000: "it is nested too deeply",
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
note: `framework-up/lock` ran because of parameter-changed venvstacks.toml#frameworks.up.requirements: (none) → alpha>=2
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
