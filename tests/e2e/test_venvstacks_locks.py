"""Locks of the real venvstacks in Strata's hands: used as they are, adopted on request, refused where they are wrong.

That each tool counts the other's locks as valid on a large stack is held in `test_venvstacks_layers`.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from space import Space
from venvstacks import Venvstacks

from strata_rules.lock import recipes

STACK = """\
[[runtimes]]
name = "python-3.x"
python_implementation = "cpython@{version}"
versioned = true
requirements = ["alpha"]

[[frameworks]]
name = "low"
runtime = "python-3.x"
linux_target = "glibc@2.31"
requirements = ["gamma", "beta; sys_platform == 'win32' or sys_platform == 'linux'"]

[[applications]]
name = "show"
versioned = true
launch_module = "show.py"
support_modules = ["aid"]
frameworks = ["low"]
requirements = ["zeta", "alpha", "beta; sys_platform == 'linux'"]

[tool.strata]
runtimes = {{ "python-3.x" = {{ provider = "archive", url = "{url}", sha256 = "{sha256}" }} }}
"""

LAYERS = ("python-3.x", "framework-low", "app-show")
WHEELS = ("--local-wheels", "wheels", "--no-index")
ALPHA = "wheels/alpha-1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def theirs(venvstacks: Venvstacks, tmp_path_factory: pytest.TempPathFactory) -> Space:
    """Give a project that venvstacks has locked, and that Strata has built once elsewhere. Not to be changed."""
    folder = tmp_path_factory.mktemp("locks")
    space = Space(folder / "workspace", folder / "store")
    space.root.mkdir()
    runtime = venvstacks.runtime
    space.write("venvstacks.toml", STACK.format(version=runtime.version, url=runtime.url, sha256=runtime.sha256))
    space.write("show.py", "import aid, alpha, beta, gamma, zeta\nprint('show', alpha.NAME, aid.AID)\n")
    space.write("aid/__init__.py", "AID = 1\n")
    for name in ("alpha", "beta", "gamma", "zeta"):
        space.wheel(name, requires=["alpha"] if name == "gamma" else [])
    venvstacks.ok(space.root, "lock", *WHEELS, "venvstacks.toml")
    shutil.rmtree(space.root / "_build")
    space.copy(folder / "elsewhere").ok("build", "-q")
    return space


@pytest.fixture
def project(theirs: Space, tmp_path: Path) -> Space:
    return theirs.copy(tmp_path / "workspace", tmp_path / "store")


def files(space: Space) -> dict[str, bytes]:
    """Read the committed locks and what lies beside them."""
    found = (
        path for path in (space.root / "requirements").rglob("*") if path.is_file() and path.name[:8] != "runtime."
    )
    return {path.name: path.read_bytes() for path in found}


def lock_path(space: Space, layer: str) -> Path:
    return space.root / "requirements" / layer / f"pylock.{layer.replace('.', '_')}.toml"


def record(space: Space, layer: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lock_path(space, layer).with_suffix(".meta.json").read_text())
    return found


def edit(space: Space, layer: str, old: str, new: str, *, honest: bool) -> None:
    """Change a lock; an honest change is recorded as venvstacks would."""
    path = lock_path(space, layer)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    if honest:
        changed = record(space, layer) | {
            "requirements_hash": recipes.requirements_hash(tomllib.loads(path.read_text()))
        }
        path.with_suffix(".meta.json").write_text(json.dumps(changed))


def valid(shown: Any) -> dict[str, bool]:
    layers = [layer for category in ("runtimes", "frameworks", "applications") for layer in shown[category]]
    return {layer["name"]: layer["has_valid_lock"] for layer in layers}


def valid_for_both(venvstacks: Venvstacks, space: Space) -> tuple[dict[str, bool], dict[str, bool]]:
    return valid(venvstacks.ok(space.root, "show", "--json", "venvstacks.toml").json), valid(
        space.ok("show", "--json").json
    )


ALL, NONE = dict.fromkeys(LAYERS, True), dict.fromkeys(LAYERS, False)


def test_a_build_uses_them_and_leaves_them_alone(venvstacks: Venvstacks, project: Space) -> None:
    before = files(project)
    assert valid_for_both(venvstacks, project) == (ALL, ALL)
    built = project.build()
    assert not {label for label in built.executed if label.endswith("/lock")}
    assert project.build("--locked").labels("up_to_date") == {action["label"] for action in built.json["actions"]}
    assert project.strata("lock", "--check").code == 0
    assert files(project) == before
    # From the same files with another system's line ends, too.
    for path in (path for path in (project.root / "requirements").rglob("*") if path.is_file()):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    project.forget_snapshots()
    assert valid_for_both(venvstacks, project) == (ALL, ALL)
    assert project.build("--locked").executed == set()


def test_lock_adopts_them(venvstacks: Venvstacks, project: Space) -> None:
    before, records = files(project), {layer: record(project, layer) for layer in LAYERS}
    project.ok("lock", "-q")
    assert {name for name, data in files(project).items() if data != before[name]} == {
        lock_path(project, layer).with_suffix(".meta.json").name for layer in LAYERS
    }
    for layer in LAYERS:
        assert {name: value for name, value in record(project, layer).items() if name != "strata"} == records[layer]
    assert valid_for_both(venvstacks, project) == (ALL, ALL)
    adopted = files(project)
    project.ok("lock", "-q")
    project.ok("build", "-q")
    assert files(project) == adopted
    # What venvstacks forgets counts from now on (its reference, row 7).
    text = project.read("venvstacks.toml")
    for old, new, said in (
        ("[tool.strata]", '[tool.uv]\nresolution = "lowest"\n\n[tool.strata]', "uv's setting `resolution` is new"),
        (
            'glibc@2.31"\n',
            'glibc@2.31"\nplatforms = ["win_amd64", "linux_x86_64"]\n',
            "its platforms were `linux_aarch64`, `linux_x86_64`, `macosx_arm64`, `macosx_x86_64`, `win_amd64`,"
            " `win_arm64` and are `linux_x86_64`, `win_amd64`",
        ),
    ):
        project.write("venvstacks.toml", text.replace(old, new))
        theirs, ours = valid_for_both(venvstacks, project)
        assert (theirs, ours["framework-low"]) == (ALL, False)
        checked = project.strata("lock", "--check")
        assert checked.code == 4
        assert f"note: {said}\n" in checked.stderr
    project.write("venvstacks.toml", text)
    assert project.strata("lock", "--check").code == 0


def test_edited_ones_are_valid_for_nobody(venvstacks: Venvstacks, project: Space) -> None:
    edit(project, "framework-low", 'version = "1.0"', 'version = "1.1"', honest=False)
    theirs, ours = valid_for_both(venvstacks, project)
    assert theirs == ours == {"python-3.x": True, "framework-low": False, "app-show": False}
    project.ok("build", "-q", "--include", "python-3.x")
    refused = project.strata("build", "--locked", "-q")
    assert refused.code == 2
    assert "note: the lock of `framework-low` was changed by hand (`pylock.framework-low.toml`)\n" in refused.stderr


def test_a_lower_lock_that_was_updated_alone(venvstacks: Venvstacks, project: Space) -> None:
    """Its reference, row 8: what git merges."""
    edit(project, "python-3.x", 'version = "1.0"', 'version = "1.1"', honest=True)
    edit(project, "python-3.x", "alpha-1.0", "alpha-1.1", honest=True)
    project.wheel("alpha", version="1.1")
    theirs, ours = valid_for_both(venvstacks, project)
    assert theirs == ALL
    assert ours == {"python-3.x": True, "framework-low": False, "app-show": False}
    checked = project.strata("lock", "--check")
    assert "`alpha` 1.0 is to come from a layer below it, and `python-3.x` has 1.1" in checked.stderr


def test_a_changed_module_makes_a_new_version_without_a_resolution(venvstacks: Venvstacks, project: Space) -> None:
    before = files(project)
    project.write("aid/__init__.py", "AID = 2\n")
    theirs, ours = valid_for_both(venvstacks, project)
    assert theirs == ours == ALL | {"app-show": False}
    # Without the folder of wheels nothing could be resolved.
    built = project.build("--no-index")
    assert {label for label in built.executed if label.endswith("/lock")} == {"app-show/lock"}
    changed = {name for name, data in files(project).items() if data != before[name]}
    assert "pylock.app-show.toml" not in changed
    assert record(project, "app-show")["lock_version"] == 2
    assert (project.root / "_build" / "app-show@2").is_dir()
    assert valid_for_both(venvstacks, project) == (ALL, ALL)


def test_locks_of_its_first_beta(venvstacks: Venvstacks, project: Space) -> None:
    """It wrote an empty marker for what every platform needs, and left the wheels of shared packages in."""
    edit(project, "python-3.x", 'name = "alpha"\n', 'name = "alpha"\nmarker = ""\n', honest=True)
    text = lock_path(project, "python-3.x").read_text()
    wheels = text[text.index("[[packages.wheels]]") :]
    shared = "marker = \"sys_platform == 'from_lower_layer'\"\n"
    edit(project, "framework-low", shared, f"{shared}\n{wheels}", honest=True)
    assert valid_for_both(venvstacks, project) == (ALL, ALL)
    assert not {label for label in project.build("--locked").executed if label.endswith("/lock")}
    project.ok("lock", "-q")
    assert valid_for_both(venvstacks, project) == (ALL, ALL)
    assert (project.site("framework-low") / "gamma.py").exists()
    assert not (project.site("framework-low") / "alpha.py").exists()


def test_local_wheels_without_sha256(venvstacks: Venvstacks, project: Space) -> None:
    """What uv once wrote of local wheels, and venvstacks accepts: a path, and no hash (its reference, §5.2 row 3)."""
    for layer in LAYERS:
        text = lock_path(project, layer).read_text()
        for line in [line for line in text.splitlines() if line.startswith("sha256 = ")]:
            edit(project, layer, f"{line}\n", "", honest=True)
    assert valid_for_both(venvstacks, project) == (ALL, ALL)
    before = files(project)
    built = project.ok("build")
    assert built.stderr.count("warning[lock-without-sha256]") == len(LAYERS)
    assert f"note: `{ALPHA}` is used as it is now\n" in built.stderr
    again = project.ok("build")
    assert again.stderr.count("warning[lock-without-sha256]") == len(LAYERS), "as long as nothing changes"
    # Another wheel of that name is installed: venvstacks does not notice.
    project.wheel("alpha", {"alpha.py": b"NAME = 'another'\n"})
    assert "python-3.x/install" in project.build().executed
    assert (project.site("python-3.x@1") / "alpha.py").read_text() == "NAME = 'another'\n"
    assert files(project) == before
    project.ok("lock", "-q")
    assert "sha256 = " in lock_path(project, "framework-low").read_text()
    assert (
        record(project, "framework-low")["locked_at"]
        == json.loads(before["pylock.framework-low.meta.json"])["locked_at"]
    )
    assert valid_for_both(venvstacks, project) == (ALL, ALL)
    quiet = project.ok("build")
    assert "warning" not in quiet.stderr
    project.wheel("alpha", {"alpha.py": b"NAME = 'one more'\n"})
    assert project.build("--locked").executed == set(), "the locked one is known here"
    shutil.rmtree(project.store)
    refused = project.strata("build", "-q")
    assert refused.code != 0
    assert refused.stderr.startswith("error[wrong-sha256]: `alpha-1.0-py3-none-any.whl` is not the expected file")


def test_what_only_lock_was_told_holds_for_other_commands(
    venvstacks: Venvstacks, theirs: Space, tmp_path: Path
) -> None:
    """With venvstacks only `lock` needs `--local-wheels`: the lock says where the wheels are."""
    project = theirs.copy(tmp_path / "workspace")
    shutil.rmtree(project.root / "requirements")
    project.ok("lock", "-q", *WHEELS)
    assert valid_for_both(venvstacks, project) == (ALL, ALL)
    project.ok("build", "-q")
    assert project.build("--locked").executed == set()
    # A change is locked with what was said then.
    project.replace("venvstacks.toml", '"alpha", "beta;', '"alpha", "gamma", "beta;')
    assert {label for label in project.build().executed if label.endswith("/lock")} == {"app-show/lock"}
    # What is said again counts instead.
    other = project.strata("lock", "--check", "--local-wheels", "more")
    assert other.code == 2
    assert "there is no" in other.stderr or "missing-folder" in other.stderr
    (project.root / "more").mkdir()
    other = project.strata("lock", "--check", "--local-wheels", "more")
    assert other.code == 4
    assert "note: uv's setting `find-links` has changed\n" in other.stderr
