"""Capture: every kind of CPython on this machine becomes the same tree each time, and runs where it is put."""

from __future__ import annotations

import json
import posixpath
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from runtimes import interpreters, kinds

from strata_engine.action import Action
from strata_engine.digest import Digest
from strata_engine.errors import HostError
from strata_engine.place import place
from strata_engine.tree import File, Symlink, Tree, edit, entries, lookup
from strata_rules.runtime import capture
from strata_rules.runtime.capture import Capturing, capture_action, capture_tree, identity, pieces
from strata_rules.runtime.local import Found, Interpreter
from strata_rules.runtime.pin import LocalPin, parse

if TYPE_CHECKING:
    from conftest import Bench

pytestmark = pytest.mark.skipif(not interpreters(), reason="no CPython here can be a runtime")


@pytest.fixture(params=["distribution", "shared", "static"])
def interpreter(request: pytest.FixtureRequest) -> Interpreter:
    if request.param not in kinds():
        pytest.skip(f"no {request.param} CPython here")
    return kinds()[request.param]


def action(
    interpreter: Interpreter | None,
    *,
    pinned: Digest | None = None,
    pin: Path | None = None,
    like: Interpreter | None = None,
) -> Action:
    model = like or interpreter
    assert model is not None
    return capture_action(
        Capturing(
            layer="rt",
            version=model.version,
            platform="linux_x86_64",
            identity=identity(model),
            pinned=pinned,
            find=lambda: Found((interpreter,) if interpreter else (), (), ()),
            pin_path=pin,
        )
    )


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, *arguments], capture_output=True, text=True, env={}, check=False)


def test_a_captured_runtime_runs_anywhere(bench: Bench, interpreter: Interpreter, tmp_path: Path) -> None:
    output = bench.run(action(interpreter))
    assert isinstance(output, Tree)
    tree, facts = lookup(bench.store, output, "tree"), lookup(bench.store, output, "facts.json")
    assert isinstance(tree, Tree)
    assert isinstance(facts, File)
    assert json.loads(bench.store.get(facts.digest))["version"] == interpreter.version
    place(bench.store, tree, tmp_path / "rt")
    site = tmp_path / f"rt/lib/python{interpreter.python}/site-packages"
    (site / "here.py").write_text("")
    (site / "sitecustomize.py").write_text("")
    script = "import here, sitecustomize, sysconfig as s; print(s.get_path('purelib'), s.get_path('scripts'))"
    done = run(tmp_path / "rt/bin/python3", "-I", "-c", script)
    assert done.stderr == ""
    assert done.stdout.split() == [str(site), str(tmp_path / "rt/bin")]
    done = run(tmp_path / "rt/bin/python", "-I", "-m", "venv", "--without-pip", str(tmp_path / "env"))
    assert (done.stderr, done.returncode) == ("", 0)
    done = run(tmp_path / "env/bin/python", "-I", "-c", "import sys; print(sys.base_prefix)")
    assert done.stdout.strip() == str(tmp_path / "rt")


def test_a_tree_holds_no_way_back_and_nothing_of_the_machine(bench: Bench, interpreter: Interpreter) -> None:
    tree = capture_tree(bench.store, interpreter)
    paths = {path: node for path, node in entries(bench.store, tree) if not isinstance(node, Tree)}
    stdlib = f"lib/python{interpreter.python}"
    assert paths[f"{stdlib}/site-packages/README.txt"]
    assert [path for path in paths if path.startswith(f"{stdlib}/site-packages/")] == [
        f"{stdlib}/site-packages/README.txt"
    ]
    for path, node in paths.items():
        assert not any(part in {"__pycache__", "test", "idlelib"} for part in path.split("/"))
        assert path.rpartition("/")[2] not in {"sitecustomize.py", "EXTERNALLY-MANAGED"}
        if isinstance(node, Symlink):
            target = posixpath.normpath(f"{posixpath.dirname(path)}/{node.target}")
            assert target in {*paths, f"{stdlib}/site-packages"}
        elif interpreter.prefix != "/usr" and path.endswith(".py"):
            assert interpreter.prefix.encode() not in bench.store.get(node.digest), path


def test_capturing_twice_gives_the_same_tree_and_the_identity_has_no_path(
    bench: Bench, interpreter: Interpreter
) -> None:
    assert capture_tree(bench.store, interpreter) == capture_tree(bench.store, interpreter)
    name = identity(interpreter)
    assert name == identity(interpreter)
    assert name.startswith(f"cpython-{interpreter.version}-")
    assert "/" not in name


def copy_of(interpreter: Interpreter, folder: Path) -> Interpreter:
    """Give the same Python in another place, as its captured tree stands there."""
    stdlib = folder / f"lib/python{interpreter.python}"
    return msgspec.structs.replace(
        interpreter,
        executable=str(folder / "bin/python"),
        prefix=str(folder),
        stdlib=str(stdlib),
        dynload=str(stdlib / "lib-dynload"),
        libdir=str(folder / "lib"),
    )


def test_the_pin_is_written_with_the_result_and_holds_another_machine_to_it(bench: Bench, tmp_path: Path) -> None:
    interpreter = interpreters()[0]
    made = action(interpreter, pin=tmp_path / "lock/runtime.rt.json")
    output = bench.run(made)
    assert isinstance(output, Tree)
    assert made.committed is not None
    assert made.committed.read(Digest.of(b""), bench.store) is None
    made.committed.write(Digest.of(b""), output, bench.store)
    tree = lookup(bench.store, output, "tree")
    assert isinstance(tree, Tree)
    pins = parse((tmp_path / "lock/runtime.rt.json").read_bytes(), "runtime.rt.json")
    assert pins == {"linux_x86_64": LocalPin(interpreter.version, identity(interpreter), str(tree.root))}
    # Nothing here, but the tree is in the store.
    assert bench.run(action(None, like=interpreter, pinned=tree.root)) == output
    # Nothing here and nothing in the store.
    absent = Digest.of(b"another tree")
    with pytest.raises(HostError) as error:
        bench.run(action(None, like=interpreter, pinned=absent))
    assert error.value.exit_code == 3
    message = error.value.diagnostics[0].message
    assert message == (
        f"`rt` is pinned to the local CPython {interpreter.version} with tree {absent},"
        " but this machine has none that fits"
    )
    # Another build of the same version.
    with pytest.raises(HostError) as error:
        bench.run(action(interpreter, pinned=absent))
    message = error.value.diagnostics[0].message
    assert message.endswith(f"with tree {absent}, but the CPython {interpreter.version} here gives {tree.root}")


def test_a_runtime_that_still_leans_on_its_old_place_is_refused(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = kinds().get("shared")
    if shared is None:
        pytest.skip("no CPython with a shared libpython here")
    monkeypatch.setattr(capture, "set_runpath", lambda data, replace: data)
    with pytest.raises(HostError) as error:
        bench.run(action(shared))
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.id == "runtime-not-relocatable"
    assert f"a file is mapped from the old place: `{shared.prefix}/lib/libpython" in diagnostic.message


def test_a_runtime_that_lost_a_module_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = capture.capture_tree

    def without_ssl(*args: object) -> Tree:
        tree = whole(*args)  # type: ignore[arg-type] # whatever the action passes
        lost = {p: None for p, _ in entries(bench.store, tree) if "/lib-dynload/_ssl." in p or p.endswith("/ssl.py")}
        assert lost
        return edit(bench.store, tree, lost)

    monkeypatch.setattr(capture, "capture_tree", without_ssl)
    with pytest.raises(HostError) as error:
        bench.run(action(interpreters()[0]))
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.id == "runtime-not-relocatable"
    assert "`import ssl` fails: ModuleNotFoundError" in diagnostic.message


def test_a_change_in_the_installation_is_another_identity(bench: Bench, tmp_path: Path) -> None:
    tree = capture_tree(bench.store, interpreters()[0])
    place(bench.store, tree, tmp_path / "py")
    copied = copy_of(interpreters()[0], tmp_path / "py")
    before = identity(copied)
    module = Path(copied.stdlib, "this.py")
    module.chmod(0o644)
    module.write_bytes(module.read_bytes()[:-1] + b"#")
    assert identity(copied) != before
    assert "lib-dynload" in "".join(piece.path for piece in pieces(copied))
