"""Bytecode: what the interpreter that compiled it makes of it, and that its bytes are always the same."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from conftest import Bench
from runtimes import interpreters

from strata_engine.action import Action, Execution, Ref, Stored
from strata_engine.digest import Digest
from strata_engine.errors import ActionError
from strata_engine.graph import ActionGraph
from strata_engine.place import place
from strata_engine.rule import Analysis, Target, analyze
from strata_engine.tree import EMPTY_TREE, File, Node, Symlink, Tree, assemble, entries, lookup
from strata_rules.bytecode import compile as script
from strata_rules.bytecode.interpreter import OPTIONS
from strata_rules.bytecode.layer import compile_action
from strata_rules.bytecode.modules import bytecode_action
from strata_rules.bytecode.rule import BytecodeAttrs, bytecode
from strata_rules.link import postinstall
from strata_rules.providers import CompiledInfo, InstallInfo, LinkInfo, RuntimeInfo
from strata_rules.runtime.capture import capture_tree
from strata_rules.runtime.local import Interpreter

HOST = "linux_x86_64"
OWN = interpreters()[0]

WHEEL: Mapping[str, bytes] = {
    "purelib/pkg/__init__.py": b"",
    "purelib/pkg/mod.py": b"VALUE = 'first'\ndef fail():\n    raise LookupError(VALUE)\n",
    "purelib/pkg/latin.py": b"# -*- coding: latin-1 -*-\nNAME = '\xe9'\n",
    "purelib/pkg/sets.py": b"def f(x):\n    return x in {None, 'a', 'b', 2.5} or x in (1, 2, (3, 'deep'))\n",
    "purelib/pkg/not-a-name.py": b"1\n",
    "purelib/pkg/a.b.py": b"1\n",
    "purelib/pkg/bad.py": b"def (:\n",
    "purelib/pkg/null.py": b"x = 1\0\n",
    "purelib/pkg/text.pyx": b"1\n",
    "purelib/.py": b"1\n",
    "platlib/gr\u00f6\u00dfe.py": b"import sys\n",
    "data/share/tool.py": b"1\n",
}
COMPILED = {
    "purelib/pkg/__pycache__/__init__", "purelib/pkg/__pycache__/mod", "purelib/pkg/__pycache__/latin",
    "purelib/pkg/__pycache__/sets", "purelib/pkg/__pycache__/not-a-name", "purelib/pkg/__pycache__/a.b",
    "platlib/__pycache__/gr\u00f6\u00dfe", "data/share/__pycache__/tool",
}  # fmt: skip


def tree_of(bench: Bench, files: Mapping[str, bytes | Node]) -> Tree:
    nodes = {path: File(bench.store.put(node)) if isinstance(node, bytes) else node for path, node in files.items()}
    return assemble(bench.store, nodes)


def runtime_of(bench: Bench, interpreter: Interpreter = OWN, text: str = "") -> RuntimeInfo:
    """Make a runtime whose interpreter is one of this machine's, or the shell script `text`."""
    started = "#!/bin/sh\n" + (text or f'exec {interpreter.executable} "$@"') + "\n"
    label = f"python/unpack-{interpreter.version}-{Digest.of(started.encode()).hash[:8]}"
    program = File(bench.store.put(started.encode()), executable=True)
    bench.outputs[label] = assemble(bench.store, {"bin/python": program})
    return info_of(label, interpreter)


def info_of(label: str, interpreter: Interpreter = OWN) -> RuntimeInfo:
    return RuntimeInfo(
        layer="python",
        implementation="cpython",
        version=interpreter.version,
        platform=HOST,
        tree=Ref(label),
        facts=Ref(label, "facts.json"),
        provider="local",
    )


def compiled(bench: Bench, tree: Tree, runtime: RuntimeInfo, label: str = "python/bytecode[x]") -> Tree:
    made = bench.run(bytecode_action(label, Stored(tree), "x", runtime))
    assert isinstance(made, Tree)
    return made


def files_of(bench: Bench, tree: Tree) -> dict[str, bytes]:
    return {path: bench.store.get(node.digest) for path, node in entries(bench.store, tree) if isinstance(node, File)}


def layer_of(
    bench: Bench, linked: Tree, made: Mapping[str, tuple[Tree, Tree]], runtime: RuntimeInfo, *, checked: bool = False
) -> Tree:
    """Compile a linked layer with what is known: trees and their bytecode."""
    bench.outputs["app-x/link"] = assemble(bench.store, {"tree": linked})
    for name, (_, known) in made.items():
        bench.outputs[f"known/{name}"] = known
    link = LinkInfo(layer="app-x", install_target="app-x", platform=HOST, tree=Ref("app-x/link", "tree"), **OFFERS)
    pairs = {name: (Stored(sources), Ref(f"known/{name}")) for name, (sources, _) in made.items()}
    found = bench.run(compile_action("app-x/compile", link, runtime, pairs, checked=checked))
    assert isinstance(found, Tree)
    return found


OFFERS = {"libraries": Ref("app-x/link", "libraries.json")}


def ask(interpreter: Interpreter, code: str, folder: Path) -> str:
    """Run code with a folder on the path; nothing that it compiles is written."""
    command = [
        interpreter.executable,
        "-I",
        "-S",
        "-B",
        "-c",
        f"import sys; sys.path.insert(0, {str(folder)!r}); {code}",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("interpreter", interpreters(), ids=lambda each: f"{each.version}-{each.prefix}")
def test_each_module_has_bytecode_that_its_interpreter_takes(
    bench: Bench, tmp_path: Path, interpreter: Interpreter
) -> None:
    wheel = tree_of(bench, WHEEL)
    made = compiled(bench, wheel, runtime_of(bench, interpreter))
    tag = f"cpython-{interpreter.python.replace('.', '')}"
    files = files_of(bench, made)
    assert {path.removesuffix(f".{tag}.pyc") for path in files} == COMPILED
    assert all(data[4:8] == b"\1\0\0\0" for data in files.values())
    place(bench.store, wheel, tmp_path / "wheel")
    for path, data in files.items():
        target = tmp_path / "wheel" / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(data)
    # What runs is the bytecode: the source says something else by now.
    module = tmp_path / "wheel" / "purelib" / "pkg" / "mod.py"
    module.write_text(module.read_text().replace("first", "other").replace("raise", "#\n    raise"))
    code = """
import json, traceback
from pkg import mod, latin, sets
try:
    mod.fail()
except LookupError as error:
    where = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
print(json.dumps([mod.VALUE, latin.NAME, sets.f(None), sets.f(7), where, mod.__cached__]))
"""
    value, name, inside, outside, where, cached = json.loads(
        ask(interpreter, f"exec({code!r})", tmp_path / "wheel" / "purelib")
    )
    assert (value, name, inside, outside) == ("first", "\xe9", True, False)
    # A traceback names the file where it lies, and no folder of the build.
    assert where[-1] == str(module)
    assert cached.endswith(f"__pycache__/mod.{tag}.pyc")
    assert not any(str(bench.folder).encode() in data or b"wheel/" in data for data in files.values())


def test_the_same_modules_have_the_same_bytes_in_another_store_and_run(tmp_path: Path) -> None:
    found = []
    for number, folder in enumerate(("one", "other/and/deeper")):
        bench = Bench(make_folder(tmp_path / folder))
        wheel = tree_of(bench, dict(reversed(WHEEL.items())) if number else WHEEL)
        found.append(compiled(bench, wheel, runtime_of(bench)))
        bench.store.flush()
        bench.index.close()
    assert found[0] == found[1]


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("interpreter", interpreters(), ids=lambda each: f"{each.version}-{each.prefix}")
def test_a_request_has_one_answer_whatever_the_process_did_before(tmp_path: Path, interpreter: Interpreter) -> None:
    corpus = [
        path
        for folder in ("json", "email", "concurrent/futures", "collections")
        for path in sorted((Path(interpreter.stdlib) / folder).glob("*.py"))
    ]
    assert len(corpus) > 20
    request = tmp_path / "request"
    with request.open("wb") as out:
        for path in corpus:
            name, source = path.name.encode(), path.read_bytes()
            out.write(script.REQUEST.pack(len(name), len(source)) + name + source)
    answers = []
    for seed, before in (("0", ""), ("0", "import argparse, asyncio, decimal, email.message, json"), ("5", "")):
        code = f"{before}\nimport runpy, sys\nsys.argv.pop(0)\nrunpy.run_path(sys.argv[0], run_name='__main__')"
        answer = tmp_path / "answer"
        command = [interpreter.executable, *OPTIONS, "-c", code, script.__file__, request, answer]
        subprocess.run(command, check=True, env={"PYTHONHASHSEED": seed})
        answers.append(answer.read_bytes())
    assert len(answers[0]) > 100_000
    assert answers[0] == answers[1] == answers[2]


def test_a_source_that_ends_the_process_is_left_out_and_nothing_else(bench: Bench) -> None:
    # An interpreter that some source crashes: it ends itself by a signal while it compiles it.
    crashing = f"""
exec {OWN.executable} -c '
import builtins, os, signal, sys, runpy
real = builtins.compile
def compile(source, *args, **more):
    if b"crash" in source: os.kill(os.getpid(), signal.SIGSEGV)
    if b"killed" in source: os.kill(os.getpid(), signal.SIGKILL)
    return real(source, *args, **more)
builtins.compile = compile
sys.argv = sys.argv[-3:]
runpy.run_path(sys.argv[0], run_name="__main__")
' "$@"
"""
    runtime = runtime_of(bench, text=crashing)
    sources = {f"{name}.py": f"{name} = 1\n".encode() for name in ("a", "crash1", "crash2", "m", "z")}
    made = compiled(bench, tree_of(bench, {**sources, "y/crash3.py": b"crash"}), runtime)
    assert {path.partition(".")[0] for path in files_of(bench, made)} == {f"__pycache__/{name}" for name in "amz"}
    # Somebody else's signal says nothing of the source.
    with pytest.raises(ActionError) as caught:
        compiled(bench, tree_of(bench, {**sources, "killed.py": b"killed"}), runtime)
    assert [found.id for found in caught.value.diagnostics] == ["no-bytecode"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo no such luck >&2; exit 3", "no such luck"),
        ("exit 0", "ended with 0"),
        ("kill -SEGV $$", "ended with -11"),
    ],
)
def test_an_interpreter_that_does_not_work_is_a_diagnostic(bench: Bench, text: str, said: str) -> None:
    with pytest.raises(ActionError) as caught:
        compiled(bench, tree_of(bench, {"a.py": b"1"}), runtime_of(bench, text=text))
    [diagnostic] = caught.value.diagnostics
    assert diagnostic.id == "no-bytecode"
    assert said in diagnostic.message
    assert "python/bytecode[x]" in diagnostic.message


def test_without_modules_nothing_is_run(bench: Bench) -> None:
    runtime = runtime_of(bench, text="exit 9")
    assert compiled(bench, tree_of(bench, {"a.txt": b"1"}), runtime) == EMPTY_TREE


def test_a_layer_takes_what_is_compiled_and_compiles_the_rest(bench: Bench) -> None:
    site = "lib/python3.99/site-packages"
    runtime = runtime_of(bench)
    wheel = tree_of(bench, {**WHEEL, "purelib/pkg/same.py": WHEEL["purelib/pkg/mod.py"]})
    # So that it can be told whose bytecode is taken.
    marked = tree_of(
        bench,
        {path: data + b" of the wheel" for path, data in files_of(bench, compiled(bench, wheel, runtime)).items()},
    )
    source = WHEEL["purelib/pkg/mod.py"]
    linked = tree_of(
        bench,
        {
            f"{site}/pkg/__init__.py": b"",
            f"{site}/pkg/mod.py": source,
            f"{site}/pkg/bad.py": WHEEL["purelib/pkg/bad.py"],
            f"{site}/elsewhere/mod.py": source,
            f"{site}/renamed.py": source,
            f"{site}/own.py": b"OWN = 1\n",
            f"{site}/linked.py": Symlink("own.py"),
            f"{site}/outside.py": Symlink("/etc/own.py"),
            f"{site}/__pycache__/own.cpython-{OWN.python.replace('.', '')}.pyc": b"shipped by someone",
            f"{site}/data.txt": b"1",
            "share/tool.py": b"1\n",
            "bin/tool.py": b"1\n",
            "bin/python": Symlink("../../python/bin/python"),
        },
    )
    found = layer_of(bench, linked, {"wheel": (wheel, marked)}, runtime)
    before, after = files_of(bench, linked), files_of(bench, found)
    added = {path: data for path, data in after.items() if before.get(path) != data}
    assert before.keys() <= after.keys()
    taken = {path for path, data in added.items() if data.endswith(b" of the wheel")}
    names = {path.removesuffix(f".cpython-{OWN.python.replace('.', '')}.pyc") for path in taken}
    assert names == {
        f"{site}/pkg/__pycache__/__init__", f"{site}/pkg/__pycache__/mod", f"{site}/elsewhere/__pycache__/mod",
    }  # fmt: skip
    fresh = {path.rpartition("/")[2].partition(".")[0] for path in added.keys() - taken}
    assert fresh == {"renamed", "own", "linked"}
    assert lookup(bench.store, found, "bin/python") == Symlink("../../python/bin/python")
    # The other kind is the same but for one bit in each.
    checked = files_of(bench, layer_of(bench, linked, {"wheel": (wheel, marked)}, runtime, checked=True))
    assert checked == {path: data[:4] + b"\3" + data[5:] if path in added else data for path, data in after.items()}


def test_bytecode_that_is_checked_is_never_taken_for_another_sources(bench: Bench, tmp_path: Path) -> None:
    site = "lib/site"
    runtime = runtime_of(bench)
    for checked, expected in ((True, "b"), (False, "a")):
        linked = tree_of(bench, {f"{site}/m.py": b"VALUE = 'a'\n"})
        folder = tmp_path / str(checked)
        place(bench.store, layer_of(bench, linked, {}, runtime, checked=checked), folder)
        source = folder / site / "m.py"
        found = source.stat()
        assert ask(OWN, "import m; print(m.VALUE)", source.parent) == "a\n"
        # The next version is as long and as old.
        source.write_text("VALUE = 'b'\n")
        os.utime(source, ns=(found.st_atime_ns, found.st_mtime_ns))
        assert ask(OWN, "import m; print(m.VALUE)", source.parent) == f"{expected}\n"


def test_postinstall_has_nothing_left_to_do(bench: Bench, tmp_path: Path) -> None:
    linked = tree_of(bench, {f"lib/{path}": data for path, data in WHEEL.items()} | {"lib/l.py": Symlink("pkg.py")})
    found = layer_of(bench, linked, {}, runtime_of(bench))
    place(bench.store, found, tmp_path / "layer")
    left = [
        str(path.relative_to(tmp_path / "layer"))
        for path in sorted((tmp_path / "layer" / "lib").rglob("*.py"))
        if path.is_file() and not postinstall.has_bytecode(path)
    ]
    assert left == ["lib/purelib/.py", "lib/purelib/pkg/bad.py", "lib/purelib/pkg/null.py"]


# -- the rule ---------------------------------------------------------------------------------------------------------


def analyzed(layers: Iterable[str], platform: str = HOST) -> Analysis:
    """Analyze layers that have the wheel `w.whl` each, on one runtime."""

    def lower(context: object) -> tuple[object, ...]:
        return (info_of("python/unpack"),)

    def installed(layer: str) -> Target:
        label = f"{layer}/install"

        def rule(context: object) -> tuple[object, ...]:
            assert hasattr(context, "add")
            context.add(
                Action(
                    label=label,
                    mnemonic="Install",
                    version=1,
                    inputs={"wheels/w": Ref("wheel/w-1.whl"), "runtime": Ref("python/unpack")},
                    run=nothing,
                )
            )
            packages = Ref(label, "packages.json")
            tree = Ref(f"{layer}/link", "tree")
            return (
                InstallInfo(
                    layer=layer, platform=platform, tree=Ref(label, "tree"), packages=packages, libraries=packages
                ),
                LinkInfo(layer=layer, install_target=layer, platform=platform, tree=tree, libraries=tree),
            )

        return Target(name=label, rule=rule)

    def made(context: object) -> tuple[object, ...]:
        assert hasattr(context, "add")
        for label in ("python/unpack", "wheel/w-1.whl", *(f"{layer}/link" for layer in layers)):
            context.add(Action(label=label, mnemonic="Other", version=1, params={"label": label}, run=nothing))
        return ()

    found = [Target(name="made", rule=made), Target(name="python/runtime", rule=lower)]
    for layer in layers:
        attrs = BytecodeAttrs(layer=layer, platform=platform, host=HOST)
        deps = (f"{layer}/install", "python/runtime")
        found += [installed(layer), Target(name=f"{layer}/compile", rule=bytecode, attrs=attrs, deps=deps)]
    return analyze(found)


def nothing(execution: Execution) -> Tree:
    return EMPTY_TREE


def grown(graph: ActionGraph) -> dict[str, Action]:
    """Expand all expansions."""
    for item in list(graph):
        if not isinstance(item, Action):
            graph.grow(item.expand(lambda ref: b""))
    return {action.label: action for action in graph.actions()}


def test_a_wheel_is_compiled_once_for_all_layers_on_a_runtime() -> None:
    found = analyzed(["python", "app-a", "app-b"])
    actions = grown(found.graph)
    assert sorted(label for label, action in actions.items() if action.mnemonic == "Bytecode") == [
        "python/bytecode[stdlib]",
        "python/bytecode[w-1.whl]",
    ]
    compiles = {label: action for label, action in actions.items() if action.mnemonic == "Compile"}
    assert sorted(compiles) == [
        label for layer in ("app-a", "app-b", "python") for label in (f"{layer}/compile", f"{layer}/compile[checked]")
    ]
    assert {name for name in compiles["app-a/compile"].inputs if "/" in name} == {"sources/w-1.whl", "bytecode/w-1.whl"}
    assert compiles["python/compile"].inputs["bytecode/stdlib"] == Ref("python/bytecode[stdlib]")
    assert actions["python/bytecode[w-1.whl]"].environment == {"PYTHONHASHSEED": "0"}
    info = found.get("app-a/compile", CompiledInfo)
    assert (info.tree, info.checked) == (Ref("app-a/compile"), Ref("app-a/compile[checked]"))


def test_nothing_of_another_platform_is_run() -> None:
    found = analyzed(["python", "app-a"], platform="win_amd64")
    assert not [label for label, action in grown(found.graph).items() if action.mnemonic in ("Bytecode", "Compile")]
    info = found.get("app-a/compile", CompiledInfo)
    assert (info.tree, info.checked) == (Ref("app-a/link", "tree"), Ref("app-a/link", "tree"))


def test_a_captured_runtime_compiles_its_own_library(bench: Bench) -> None:
    bench.outputs["python/unpack"] = capture_tree(bench.store, OWN)
    runtime = info_of("python/unpack")
    made = bench.run(bytecode_action("python/bytecode[stdlib]", runtime.tree, "the standard library", runtime))
    assert isinstance(made, Tree)
    library = f"lib/python{OWN.python}"
    for name in ("os", "json/decoder"):
        source = Path(OWN.stdlib) / f"{name}.py"
        folder, _, stem = f"{library}/{name}".rpartition("/")
        node = lookup(bench.store, made, f"{folder}/__pycache__/{stem}.cpython-{OWN.python.replace('.', '')}.pyc")
        assert isinstance(node, File)
        assert bench.store.get(node.digest)[8:16] == importlib.util.source_hash(source.read_bytes())
