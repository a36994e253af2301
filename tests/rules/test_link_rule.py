"""Linked layers on a real CPython: they run wherever they are put, and their libraries find each other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from native import EXTENSION, compiled, needs_gcc

from strata_engine.action import Action, Literal, Ref, Stored
from strata_engine.errors import SpecError
from strata_engine.place import place
from strata_engine.rule import RuleContext, Target, analyze
from strata_engine.tree import EMPTY_TREE, File, Node, Symlink, Tree, assemble, entries, lookup
from strata_rules.contents import decode, encode, libraries
from strata_rules.layout import CONFIG_PATH, DYNLIB_DIR
from strata_rules.link.offers import Offers
from strata_rules.link.rule import LinkAttrs, Module, link
from strata_rules.prove_layer import prove_layer
from strata_rules.providers import InstallInfo, LinkInfo, RuntimeInfo
from strata_rules.runtime.capture import capture_tree
from strata_rules.runtime.local import probe

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
SITE = f"lib/python{VERSION}/site-packages"
HOST = "linux_x86_64"

posix = pytest.mark.skipif(sys.platform != "linux", reason="runs layers for Linux")


class Stack:
    """Layers whose install trees are given, linked by the rule and the real executor."""

    def __init__(self, bench: Any, platform: str = HOST, version: str = f"{VERSION}.0") -> None:
        self.bench, self.platform, self.version = bench, platform, version
        self.targets: list[Target] = []
        self.links: dict[str, LinkInfo] = {}

    def layer(self, env: str, tree: Tree, lower: Sequence[str] = (), **attrs: Any) -> Tree:
        store = self.bench.store
        found = []
        for path, node in entries(store, tree):
            if isinstance(node, File) and path.startswith("lib/python") and (".so" in path or ".dylib" in path):
                with store.open(node.digest) as stream:
                    found += libraries(path, stream)
        self.bench.outputs[f"{env}/install"] = assemble(
            store, {"tree": tree, "libraries.json": File(store.put(encode(found)))}
        )
        installed = InstallInfo(
            layer=env,
            platform=self.platform,
            tree=Ref(f"{env}/install", "tree"),
            packages=Ref(f"{env}/install", "packages.json"),
            libraries=Ref(f"{env}/install", "libraries.json"),
        )
        runtime = RuntimeInfo(
            layer=lower[-1] if lower else env,
            implementation="cpython",
            version=self.version,
            platform=self.platform,
            tree=Ref("runtime/tree"),
            facts=Ref("runtime/facts"),
            provider="local",
        )
        kind = "application" if env.startswith("app-") else "framework" if lower else "runtime"
        given = {"install_target": env, "kind": kind, "host": HOST, "platform": self.platform, "layer": env, **attrs}

        def given_rule(ctx: RuleContext) -> tuple[object, ...]:
            ctx.add(made_before(f"{env}/install", self.bench.outputs[f"{env}/install"]))
            if not lower:
                ctx.add(made_before("runtime/tree", self.runtime_tree))
            return installed, runtime

        self.targets += [
            Target(name=f"{env}/installed", rule=given_rule),
            Target(name=env, rule=link, attrs=LinkAttrs(**given), deps=(f"{env}/installed", *lower)),
        ]
        analysis = analyze(self.targets)
        self.links[env] = analysis.get(env, LinkInfo)
        item = analysis.graph.item(self.links[env].tree.label)
        assert isinstance(item, Action)
        self.action = item
        self.bench.outputs["runtime/tree"] = self.runtime_tree
        out = self.bench.run(self.action)
        linked = lookup(store, out, "tree")
        assert isinstance(linked, Tree)
        return linked

    runtime_tree: Tree = EMPTY_TREE

    def offers(self, env: str) -> Offers:
        node = lookup(self.bench.store, self.bench.outputs[self.links[env].tree.label], "libraries.json")
        return decode(self.bench.store.get(node.digest), Offers)


def made_before(label: str, node: Node) -> Action:
    """Stand for an action whose output is there."""
    return Action(label=label, mnemonic="Given", version=1, inputs={"out": Stored(node)}, run=lambda e: e.node("out"))


def files(store: Any, contents: Mapping[str, bytes | Symlink]) -> Tree:
    nodes: dict[str, Node] = {
        path: data if isinstance(data, Symlink) else File(store.put(data)) for path, data in contents.items()
    }
    return assemble(store, nodes)


def text(store: Any, tree: Tree, path: str) -> str:
    node = lookup(store, tree, path)
    assert isinstance(node, File), path
    return store.get(node.digest).decode()


@pytest.fixture
def stack(bench: Any) -> Stack:
    """A runtime captured from the Python that runs the tests."""
    interpreter = probe(Path(sys.executable))
    assert interpreter is not None
    made = Stack(bench, version=interpreter.version)
    made.runtime_tree = capture_tree(bench.store, interpreter)
    return made


def put(stack: Stack, folder: Path, layers: Mapping[str, Tree]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, tree in layers.items():
        place(stack.bench.store, tree, folder / name)
    return folder


def run(python: Path, code: str, **env: str) -> str:
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def diamond(stack: Stack) -> dict[str, Tree]:
    """App → (D, F) with D → (B, C) → A and F → E → B: C3 order D F E B C A."""
    store = stack.bench.store
    order = {
        "cpython": [],
        "framework-A": ["cpython"],
        "framework-B": ["framework-A", "cpython"],
        "framework-C": ["framework-A", "cpython"],
        "framework-D": ["framework-B", "framework-C", "framework-A", "cpython"],
        "framework-E": ["framework-B", "framework-A", "cpython"],
        "framework-F": ["framework-E", "framework-B", "framework-A", "cpython"],
        "app-x": [*(f"framework-{name}" for name in "DFEBCA"), "cpython"],
    }
    made = {}
    for env, lower in order.items():
        own = {f"{SITE}/shadow.py": f"who = {env!r}\n".encode(), f"{SITE}/only_{env[-1].lower()}.py": b"x = 1\n"}
        if env == "framework-B":
            # A package's own .pth and sitecustomize must work through the layers.
            own |= {
                f"{SITE}/b_extra.pth": b"b_extra\nimport sys; sys.b_pth = getattr(sys, 'b_pth', 0) + 1\n",
                f"{SITE}/b_extra/hidden.py": b"y = 2\n",
                f"{SITE}/sitecustomize.py": b"import sys; sys.customized = 'b'\n",
            }
        tree = files(store, own)
        if not lower:
            nodes: dict[str, Node] = dict(entries(store, stack.runtime_tree))
            nodes = {path: node for path, node in nodes.items() if not isinstance(node, Tree)}
            tree = assemble(store, nodes | {path: File(store.put(data)) for path, data in own.items()})
        options: dict[str, Any] = {}
        if env == "app-x":
            package = files(store, {"__init__.py": b"", "__main__.py": b"import shadow; print(shadow.who)\n"})
            options = {
                "launch": Module("launch", "launch", Stored(package)),
                "support": (Module("aid", "aid.py", Literal(b"z = 3\n")),),
            }
        made[env] = stack.layer(env, tree, lower, **options)
    return made


@posix
def test_a_diamond_runs_wherever_it_is_put(stack: Stack, tmp_path: Path) -> None:
    folder = put(stack, tmp_path / "stack", diamond(stack))
    statement = (
        "import shadow, hidden, aid, launch, only_a, only_e, only_n, ssl, sys;"
        "assert shadow.who == 'app-x' and sys.b_pth == 1 and sys.customized == 'b', (shadow.who, sys.b_pth)"
    )
    proof = prove_layer(folder, "app-x", statement)
    assert proof.problems == ()
    layers = [path.split("/")[-4] for path in proof.answer["path"] if path.endswith("/site-packages")]
    assert layers == ["app-x", *(f"framework-{name}" for name in "DFEBCA"), "cpython"]
    assert (folder / "app-x/bin/python").exists(), "the stack is back where it was"

    python = folder / "app-x/bin/python"
    for options in (["-I"], ["-E", "-s"], ["-P"], ["-OO"], ["-B"], ["-W", "error", "-X", "dev"]):
        done = subprocess.run(
            [str(python), *options, "-m", "launch"], capture_output=True, text=True, env={}, check=False
        )
        assert (done.returncode, done.stdout) == (0, "app-x\n"), done.stderr
    assert run(folder / "app-x/bin/python3", "import shadow; print(shadow.who)") == "app-x"
    pool = (
        "import multiprocessing as m\nif __name__ == '__main__': print(m.get_context('spawn').Pool(1).map(abs, [-3]))"
    )
    script = tmp_path / "pool.py"
    script.write_text(pool)
    done = subprocess.run([str(python), str(script)], capture_output=True, text=True, env={}, check=False)
    assert done.stdout == "[3]\n", done.stderr


@posix
def test_a_proof_notices_what_does_not_move(stack: Stack, tmp_path: Path) -> None:
    folder = put(stack, tmp_path / "stack", diamond(stack))
    cfg = folder / "app-x/pyvenv.cfg"
    cfg.write_text(f"home = {folder}/cpython/bin\ninclude-system-site-packages = false\n")
    assert prove_layer(folder, "app-x", "import shadow").problems
    assert prove_layer(folder, "framework-D", "import shadow").problems == ()
    assert prove_layer(folder, "framework-D", "import nothing_like_it").problems


@posix
def test_layers_that_are_not_where_they_belong_say_so(stack: Stack, tmp_path: Path) -> None:
    made = diamond(stack)
    folder = put(stack, tmp_path / "stack", made)

    def refused(python: Path) -> str:
        done = subprocess.run([str(python), "-c", "print('ran')"], capture_output=True, text=True, env={}, check=False)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    (folder / "framework-E").rename(folder / "framework-E.old")
    assert "not found: framework-E" in refused(folder / "app-x/bin/python")
    (folder / "framework-E.old").rename(folder / "framework-E")
    # Another Python's prefix, as when only the layer is linked to from elsewhere.
    home = tmp_path / "other"
    place(stack.bench.store, stack.runtime_tree, home)
    python = folder / "app-x/bin/python"
    python.unlink()
    python.symlink_to(home / "bin/python")
    said = refused(python)
    assert str(home) in said
    assert "side by side" in said


@posix
@needs_gcc
@pytest.mark.parametrize("dynlib", ["preload", "launcher"])
def test_libraries_of_two_frameworks_serve_an_extension(stack: Stack, tmp_path: Path, dynlib: str) -> None:
    store, build = stack.bench.store, tmp_path / "build"
    foo = compiled(build, "libfoo.so.1", "int foo(void) { return 40; }", "-Wl,-soname,libfoo.so.1")
    bar = compiled(
        build, "libbar.so.2", "int foo(void); int bar(void) { return foo() + 2; }",
        "-Wl,-soname,libbar.so.2", f"-L{build}", "-l:libfoo.so.1",
    )  # fmt: skip
    extension = compiled(build, "_fooext.abi3.so", EXTENSION, f"-L{build}", "-l:libbar.so.2", "-Wl,-rpath-link,.")
    layers = {
        "cpython": stack.layer("cpython", stack.runtime_tree),
        "framework-np": stack.layer(
            "framework-np", files(store, {f"{SITE}/np.libs/libfoo.so.1.2.3": foo}), ["cpython"]
        ),
        "framework-sk": stack.layer(
            "framework-sk",
            files(store, {f"{SITE}/sk/libbar.so.2": bar, f"{SITE}/sk/__init__.py": b""}),
            ["framework-np", "cpython"],
        ),
        "app-x": stack.layer(
            "app-x",
            files(store, {f"{SITE}/deep/_fooext.abi3.so": extension, f"{SITE}/deep/__init__.py": b""}),
            ["framework-sk", "framework-np", "cpython"],
            dynlib=dynlib,
        ),
    }
    np = layers["framework-np"]
    for name in ("libfoo.so.1", "libfoo.so.1.2.3"):
        assert lookup(store, np, f"{DYNLIB_DIR}/{name}") == Symlink(f"../../../{SITE}/np.libs/libfoo.so.1.2.3")
    assert list(stack.offers("framework-sk").libraries) == ["libbar.so.2"]
    folder = put(stack, tmp_path / "stack", layers)
    proof = prove_layer(folder, "app-x", "import deep._fooext; assert deep._fooext.value() == 42")
    assert proof.problems == ()
    assert sum(path.endswith(("libfoo.so.1.2.3", "libbar.so.2")) for path in proof.answer["maps"]) == 2
    # A program started by the application is not disturbed, unless the launcher was asked for.
    leaked = run(folder / "app-x/bin/python", "import os; print(os.environ.get('LD_LIBRARY_PATH', ''))")
    assert bool(leaked) == (dynlib == "launcher")
    if dynlib == "launcher":
        code = "import subprocess, sys; print(subprocess.run([sys.executable, '-c', %r], stdout=-1).stdout.decode())"
        again = run(folder / "app-x/bin/python", code % "import os; print(os.environ['LD_LIBRARY_PATH'])")
        assert again == leaked, "no child adds the folders once more"
        code = "import ctypes; print(ctypes.CDLL('libfoo.so.1').foo())"
        assert run(folder / "app-x/bin/python", code) == "40"
    else:
        # Without the library it is an ImportError, which callers expect, and it names the library.
        (folder / "framework-np" / SITE / "np.libs/libfoo.so.1.2.3").unlink()
        said = run(
            folder / "app-x/bin/python",
            "try: import deep._fooext\nexcept ImportError as error: print(error)",
        )
        assert "libfoo" in said


@posix
def test_postinstall_compiles_once_with_the_layers_own_python(stack: Stack, tmp_path: Path) -> None:
    folder = put(stack, tmp_path / "stack", diamond(stack))
    app = folder / "app-x"
    site = app / SITE
    (site / "broken_template.py").write_text("def (\n")
    script = str(app / "postinstall.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd="/", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = {path: path.stat().st_mtime_ns for path in site.rglob("*.pyc")}
    assert {path.name.split(".")[0] for path in found} >= {"shadow", "aid", "_strata_boot", "__main__"}
    assert not list((folder / "framework-A").rglob("*.pyc")), "one layer only"
    # Bytecode that would be taken is left, a changed source is compiled anew though time and size look alike.
    kept = next(path for path in found if path.name.startswith("aid"))
    before = kept.read_bytes()
    subprocess.run([str(folder / "cpython/bin/python"), script], check=True)
    assert {path: path.stat().st_mtime_ns for path in site.rglob("*.pyc")} == found
    assert kept.read_bytes() == before
    assert prove_layer(folder, "app-x", "import shadow, aid").problems == ()


@posix
def test_postinstall_refuses_to_leave_the_stack(stack: Stack, tmp_path: Path) -> None:
    folder = put(stack, tmp_path / "stack", diamond(stack))
    config_file = folder / "app-x" / CONFIG_PATH
    config = json.loads(config_file.read_text())
    outside = str(tmp_path / "evil")
    for name, value in (
        ("base_python", "../../evil/python"),
        ("base_python", outside),
        ("pylib_dirs", ["../../../x"]),
        ("site_dir", ".."),
        ("dynlib_dirs", "../x"),
    ):
        config_file.write_text(json.dumps({**config, name: value}))
        done = subprocess.run(
            [sys.executable, str(folder / "app-x/postinstall.py")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1, (name, value)
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
    config_file.write_text("not json")
    done = subprocess.run(
        [sys.executable, str(folder / "app-x/postinstall.py")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.startswith("error: ")) == (1, True)


def test_what_a_layer_says_of_itself(bench: Any) -> None:
    stack = Stack(bench, version=f"{VERSION}.7")
    store = bench.store
    stack.layer("cpython", files(store, {f"{SITE}/x.py": b""}))
    stack.layer("framework-np", files(store, {f"{SITE}/y.py": b""}), ["cpython"], install_target="framework-np@2")
    app = stack.layer(
        "app-x",
        files(store, {f"{SITE}/z.py": b"", f"{SITE}/launch/__init__.py": b""}),
        ["framework-np", "cpython"],
        launch=Module("launch", "launch.py", Literal(b"print(1)\n")),
    )
    assert json.loads(text(store, app, CONFIG_PATH)) == {
        "base_python": "../cpython/bin/python",
        "dynlib_dirs": ["../framework-np@2/share/venv/dynlib", "../cpython/share/venv/dynlib"],
        "launch_module": "launch",
        "py_version": f"{VERSION}.7",
        "pylib_dirs": [f"../framework-np@2/{SITE}", f"../cpython/{SITE}"],
        "python": "bin/python",
        "site_dir": SITE,
    }
    assert lookup(store, app, "bin/python") == Symlink("../../cpython/bin/python")
    assert text(store, app, f"{SITE}/launch.py") == "print(1)\n"
    assert [warning.id for warning in bench.warnings] == ["module-shadows-package"]
    assert stack.action.label == "app-x/link"
    assert sorted(stack.action.inputs) == [
        "install",
        "libraries.json",
        "lower/0000-framework-np/libraries.json",
        "lower/0001-cpython/libraries.json",
        "modules/launch.py",
        "postinstall.py",
    ]
    assert not stack.action.platform


@pytest.mark.parametrize("platform", ["win_amd64", "macosx_arm64"])
def test_foreign_platforms_are_linked_here(bench: Any, platform: str) -> None:
    store = bench.store
    stack = Stack(bench, platform, "3.13.1")
    site = "Lib/site-packages" if platform.startswith("win") else "lib/python3.13/site-packages"
    stack.runtime_tree = files(store, {"Lib/venv/scripts/nt/venvlauncher.exe": b"MZ", "python.exe": b"MZ python"})
    runtime = stack.layer("cpython", stack.runtime_tree)
    app = stack.layer("app-x", files(store, {f"{site}/z.py": b""}), ["cpython"], dynlib="launcher")
    assert stack.action.label == f"app-x/link[{platform}]"
    if platform.startswith("win"):
        assert text(store, app, "Scripts/python.exe") == "MZ"
        assert lookup(store, app, "pyvenv.cfg") is None
        assert not any(isinstance(node, Symlink) for _, node in entries(store, app))
        assert json.loads(text(store, app, CONFIG_PATH)) == {
            "base_python": "..\\cpython\\python.exe",
            "dynlib_dirs": ["..\\cpython\\Library\\bin"],
            "py_version": "3.13.1",
            "pylib_dirs": ["..\\cpython\\Lib\\site-packages"],
            "python": "Scripts\\python.exe",
            "site_dir": "Lib\\site-packages",
        }
    else:
        assert "DYLD_LIBRARY_PATH" in text(store, app, "bin/python")
    assert lookup(store, runtime, "postinstall.py") is not None


@pytest.mark.parametrize(
    ("platform", "modules", "said"),
    [
        ("win_amd64", {"aux": b""}, ["name-on-windows"]),
        ("win_amd64", {"app": {"nul.txt": b"", "con/x.py": b"", "fine.py": b""}}, ["name-on-windows"] * 2),
        ("win_arm64", {"App": {"__init__.py": b""}}, ["case-clash"]),
        ("macosx_arm64", {"app": {"a.py": b"", "A.py": b""}}, ["case-clash"]),
        ("macosx_arm64", {"one": b"", "One": b""}, ["case-clash"]),
        ("macosx_arm64", {"aux": b"", "app": {"con.py": b""}}, []),
        ("linux_aarch64", {"App": {"__init__.py": b"", "aux.py": b""}, "one": b"", "One": b""}, []),
    ],
)
def test_modules_have_names_that_the_platform_can_have(
    bench: Any, platform: str, modules: dict[str, Any], said: list[str]
) -> None:
    store = bench.store
    stack = Stack(bench, platform, "3.13.1")
    stack.runtime_tree = files(store, {"python.exe": b"MZ", "Lib/venv/scripts/nt/venvlauncher.exe": b"MZ"})
    stack.layer("cpython", stack.runtime_tree)
    site = "Lib/site-packages" if platform.startswith("win") else "lib/python3.13/site-packages"
    support = tuple(
        Module(name, f"{name}.py", Literal(given))
        if isinstance(given, bytes)
        else Module(name, name, Stored(files(store, given)))
        for name, given in modules.items()
    )
    installed = files(store, {f"{site}/app/__init__.py": b""})
    found: list[str] = []
    try:
        stack.layer("app-x", installed, ["cpython"], support=support)
    except SpecError as error:
        found = [diagnostic.id for diagnostic in error.diagnostics]
    assert found == said


def test_a_file_that_is_no_module_keeps_its_name(bench: Any) -> None:
    stack = Stack(bench)
    stack.layer("cpython", files(bench.store, {"bin/python": b""}))
    site = f"lib/python{VERSION}/site-packages"
    installed = files(bench.store, {f"{site}/notes.py": b"", f"{site}/data.json": b"theirs"})
    support = tuple(Module(name.split(".")[0], name, Literal(b"ours")) for name in ("notes.txt", "data.json"))
    app = stack.layer("app-x", installed, ["cpython"], support=support)
    assert [text(bench.store, app, f"{site}/{name}") for name in ("notes.txt", "data.json", "notes.py")] == [
        "ours",
        "ours",
        "",
    ]
    # In the place of one file of a package, which it is not beside.
    assert [warning.message.split("`")[3] for warning in bench.warnings] == [f"{site}/data.json"]


def test_a_layer_has_a_folder_that_windows_can_have(bench: Any) -> None:
    for platform in ("linux_x86_64", "win_amd64"):
        stack = Stack(bench, platform, "3.12.1")
        if platform == "linux_x86_64":
            stack.layer("aux", files(bench.store, {"bin/python": b""}))
            continue
        with pytest.raises(SpecError, match="the layer's folder `aux`: `aux` is the name of a device"):
            stack.layer("aux", files(bench.store, {"python.exe": b""}))


def test_a_sitecustomize_that_will_be_replaced_is_said(bench: Any) -> None:
    stack = Stack(bench, "win_amd64", "3.12.1")
    stack.runtime_tree = files(bench.store, {"Lib/venv/scripts/nt/python.exe": b"MZ l", "python.exe": b"MZ"})
    stack.layer("cpython", stack.runtime_tree)
    app = stack.layer("app-x", files(bench.store, {"Lib/site-packages/sitecustomize.py": b""}), ["cpython"])
    assert [warning.id for warning in bench.warnings] == ["sitecustomize-replaced"]
    assert text(bench.store, app, "Scripts/python.exe") == "MZ l", "the launcher's name before 3.13"
    assert lookup(bench.store, app, "Scripts/pythonw.exe") is None
    assert not [path for path, _ in entries(bench.store, app) if "zzz_layers" in path or "_strata_boot" in path]


def test_a_later_python_gets_a_start_file(bench: Any) -> None:
    stack = Stack(bench, version="3.15.2")
    stack.layer("cpython", files(bench.store, {"bin/python": b""}))
    app = stack.layer("app-x", files(bench.store, {"lib/python3.15/site-packages/z.py": b""}), ["cpython"])
    assert text(bench.store, app, "lib/python3.15/site-packages/zzz_layers.start") == "_strata_boot:main\n"
    assert text(bench.store, app, "lib/python3.15/site-packages/zzz_layers.pth").isascii()
