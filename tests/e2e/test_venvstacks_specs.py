"""Stack files of every kind, read by the real venvstacks and by Strata: both refuse, or both find the same stack.

What Strata alone refuses, and what it alone accepts, is listed with the reason. Everything is read in one process of
each tool, so that hundreds of files cost a second.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import uv_environ
from packaging.requirements import Requirement
from venvstacks import environment

from strata_engine.errors import SpecError
from strata_rules.spec.load import Layer, Stack, load_stack
from strata_rules.spec.modules import ApplicationModules, application_modules
from strata_rules.spec.uvconfig import layer_config

REAL = """\
import contextlib, io, json, sys, tomllib, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from venvstacks.stacks import EnvStackError, StackSpec

def described(env):
    spec = env.env_spec
    # What uv would be told, from no lower locks.
    env.get_constraint_paths = list
    asked = env.build_path / "requirements.in"
    asked.write_text("")
    env._write_pyproject_file(asked)
    uv = tomllib.loads((env._pyproject_path / "pyproject.toml").read_text())["tool"]["uv"]
    launch, support = getattr(spec, "launch_module_path", None), getattr(spec, "support_module_paths", [])
    return {
        "env_name": spec.env_name, "versioned": spec.versioned, "platforms": sorted(set(spec.platforms)),
        "below": [below.env_name for below in getattr(spec, "frameworks", ())],
        "runtime": spec.runtime.env_name if hasattr(spec, "runtime") else None,
        "package_indexes": spec.package_indexes, "requirements": [str(each) for each in spec.requirements],
        "dynlib_exclude": spec.dynlib_exclude, "linux_target": spec.linux_target, "macosx_target": spec.macosx_target,
        "lock": spec.get_requirements_fname(""), "uv": uv,
        "launch": launch and [launch.stem, launch.name], "support": [[path.stem, path.name] for path in support],
    }

def look(path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        spec = StackSpec.load(path)
    build = spec.define_build_environment(path.parent / "build")
    build.build_path.mkdir()
    kinds = (build.runtimes, build.frameworks, build.applications)
    layers = [described(env) for kind in kinds for env in kind.values()]
    return {"layers": layers, "deprecated": sum(each.category is FutureWarning for each in caught)}

found = {}
for name, path in json.load(sys.stdin).items():
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            found[name] = look(Path(path))
    except Exception as error:
        found[name] = {"refused": f"{type(error).__name__}: {error}"}
json.dump(found, sys.stdout)
"""

FILES = (
    "app.py",
    "my-app.py",
    "a.b.py",
    "json.py",
    "notes.txt",
    "script",
    "pack/__main__.py",
    "bare/__init__.py",
    "lib/u.py",
    "u.py",
    "u.txt",
    "lib-x.py",
    "B.py",
    "v1.2/__main__.py",
    "../above.py",
)


def layer(kind: str, name: str, *lines: str) -> str:
    return "\n".join((f"[[{kind}]]", f"name = {json.dumps(name, ensure_ascii=False)}", *lines, ""))


def runtime(name: str = "py", *more: str, python: str = "cpython@3.12.9", requires: str = "") -> str:
    return layer("runtimes", name, f'python_implementation = "{python}"', f"requirements = [{requires}]", *more)


def framework(name: str, *more: str, on: tuple[str, ...] = ()) -> str:
    return layer("frameworks", name, f"frameworks = {list(on)}" if on else 'runtime = "py"', "requirements = []", *more)


def application(name: str, *more: str, on: tuple[str, ...] = (), launch: str = "app.py") -> str:
    lower = f"frameworks = {list(on)}" if on else 'runtime = "py"'
    return layer("applications", name, lower, "requirements = []", f'launch_module = "{launch}"', *more)


def table(name: str, **values: str) -> str:
    return f"{name} = {{ " + ", ".join(f'{key} = "{value}"' for key, value in values.items()) + " }"


def takes(**indexes: str) -> str:
    return table("package_indexes", **indexes)


def accepts(**indexes: str) -> str:
    return table("index_overrides", **indexes)


INDEXES = "".join(
    f'[[tool.uv.index]]\nname = "{name}"\nurl = "https://example.org/{name}"\n{more}'
    for name, more in {
        "a": "explicit = true\n",
        "b": "explicit = true\n",
        "c": "explicit = true\n",
        "main": "",
        "standard": "default = true\n",
    }.items()
)

STACKS = {
    "empty": "",
    "comment": "# nothing\n",
    "other-tables": 'title = "x"\n[project]\nname = "y"\n[tool.other]\nx = 1\n' + runtime(),
    "strata-table": runtime() + "[tool.strata]\nconflicts = 'error'\n",
    "kinds-in-any-order": application("x", on=("a",)) + framework("a") + runtime(),
    "upstream-order": runtime()
    + framework("A")
    + framework("B", on=("A",))
    + framework("C", on=("A",))
    + framework("D", on=("B", "C"))
    + framework("E", on=("B",))
    + framework("F@1", on=("E",))
    + application("empty", on=("D", "F@1"))
    + application("none"),
    "two-runtimes": runtime()
    + runtime("p2", python="cpython@3.11.11")
    + framework("a")
    + layer("frameworks", "b", 'runtime = "p2"', "requirements = []")
    + application("x", on=("a",))
    + application("y", on=("b",)),
    "one-name-for-all-kinds": runtime("py") + framework("py") + application("py", on=("py",)),
    "forward-reference": runtime() + framework("b", on=("a",)) + framework("a"),
    "cycle": runtime() + framework("a", on=("b",)) + framework("b", on=("a",)),
    "itself": runtime() + framework("a", on=("a",)),
    "twice": runtime() + framework("a") + framework("b", on=("a", "a")),
    "no-order": runtime()
    + framework("a")
    + framework("b")
    + framework("x", on=("a", "b"))
    + framework("y", on=("b", "a"))
    + application("z", on=("x", "y")),
    "lower-before-upper": runtime() + framework("a") + framework("b", on=("a",)) + application("z", on=("a", "b")),
    "upper-before-lower": runtime() + framework("a") + framework("b", on=("a",)) + application("z", on=("b", "a")),
    "both": runtime() + framework("a") + framework("b", 'frameworks = ["a"]'),
    "both-empty": runtime() + framework("b", "frameworks = []"),
    "neither": runtime() + layer("frameworks", "b", "requirements = []"),
    "neither-empty": runtime() + layer("frameworks", "b", "frameworks = []", "requirements = []"),
    "unknown-runtime": framework("b"),
    "unknown-framework": runtime() + framework("b", on=("zz",)),
    "runtime-is-a-framework": runtime("r") + framework("py") + framework("b"),
    "application-on-application": runtime() + application("a") + application("b", on=("a",)),
    "other-runtimes-below": runtime()
    + runtime("p2")
    + framework("a")
    + layer("frameworks", "b", 'runtime = "p2"', "requirements = []")
    + application("x", on=("a", "b")),
    "no-name": '[[runtimes]]\npython_implementation = "cpython@3.12.9"\nrequirements = []\n',
    "no-requirements": layer("runtimes", "py", 'python_implementation = "cpython@3.12.9"'),
    "no-python": layer("runtimes", "py", "requirements = []"),
    "no-launch": runtime() + layer("applications", "x", 'runtime = "py"', "requirements = []"),
    "same-runtime": runtime() + runtime(),
    "same-framework": runtime() + framework("a") + framework("a"),
    "same-application": runtime() + application("a") + application("a"),
    "case-alone": runtime() + framework("Lib") + framework("lib"),
    "encoding-alone": runtime() + framework("caf\u00e9") + framework("cafe\u0301"),
    "runtime-called-as-an-application": runtime() + runtime("app-x") + application("x"),
    "version-of-another": runtime("x", "versioned = true") + runtime("x@2"),
    "unknown-field": runtime("py", "platfroms = []"),
    "field-of-runtimes": runtime() + framework("a", 'python_implementation = "cpython@3.12.9"'),
    "field-of-applications": runtime() + framework("a", 'launch_module = "app.py"'),
    "field-of-frameworks": runtime("py", "frameworks = []"),
    "old-name": layer("runtimes", "py", 'fully_versioned_name = "cpython@3.12.9"', "requirements = []"),
    "old-and-new-name": runtime("py", 'fully_versioned_name = "cpython@3.12.9"'),
    "old-name-elsewhere": runtime() + framework("a", 'fully_versioned_name = "cpython@3.12.9"'),
    "build-requirements": runtime("py", 'build_requirements = ["x"]')
    + framework("a", "build_requirements = []")
    + application("b", 'build_requirements = ["y"]', on=("a",)),
    "versioned": runtime("py", "versioned = true")
    + framework("a", "versioned = true")
    + application("x", "versioned = true", on=("a",)),
    "dynlib-exclude": runtime("py", 'dynlib_exclude = ["*", "PIL/**/x.*", "a["]'),
    "platforms-not-below": runtime("py", 'platforms = ["linux_x86_64"]') + framework("a", 'platforms = ["win_amd64"]'),
    "platforms-on-disabled": runtime("py", "platforms = []") + framework("a", 'platforms = ["linux_x86_64"]'),
    "platforms-disjoint": runtime()
    + framework("a", 'platforms = ["win_amd64"]')
    + framework("b", 'platforms = ["linux_x86_64"]')
    + application("x", on=("a", "b")),
    "syntax": "[[runtimes]\n",
    "runtimes-is-a-table": '[runtimes]\nname = "py"\n',
    "requirements-is-a-string": runtime().replace("[]", '"x"'),
    "requirement-is-a-number": runtime(requires="3"),
    "versioned-is-a-string": runtime("py", 'versioned = "yes"'),
    "frameworks-is-a-string": runtime() + framework("a") + framework("b", on=("a",)).replace("['a']", '"a"'),
    # indexes
    "indexes": INDEXES
    + runtime("py", takes(torch="a"))
    + framework("f", takes(numpy="b"), 'priority_indexes = ["c", "main"]')
    + application("x", on=("f",)),
    "index-unknown": runtime("py", takes(torch="zz")),
    "priority-unknown": runtime("py", 'priority_indexes = ["zz"]'),
    "priority-twice": INDEXES + runtime("py", 'priority_indexes = ["a", "a"]'),
    "priority-of-the-default": INDEXES + runtime("py", 'priority_indexes = ["standard", "a"]'),
    "two-spellings": INDEXES + runtime("py", takes(Torch="a", torch="a")),
    "two-spellings-above": INDEXES + runtime() + framework("f", takes(Torch="a", torch="b")),
    "conflict-with-runtime": INDEXES + runtime("py", takes(torch="a")) + framework("f", takes(Torch="b")),
    "conflict-accepted": INDEXES + runtime("py", takes(torch="a")) + framework("f", takes(Torch="b"), accepts(a="b")),
    "conflict-accepted-the-other-way": INDEXES
    + runtime("py", takes(torch="a"))
    + framework("f", takes(Torch="b"), accepts(b="a")),
    "conflict-accepted-below-alone": INDEXES
    + runtime()
    + framework("g", takes(torch="a"))
    + framework("f", takes(torch="b"), accepts(a="b"), on=("g",))
    + application("x", on=("f",)),
    "conflict-accepted-by-each": INDEXES
    + runtime()
    + framework("g", takes(torch="a"))
    + framework("f", takes(torch="b"), accepts(a="b"), on=("g",))
    + application("x", accepts(a="b"), on=("f",)),
    "conflict-of-frameworks": INDEXES
    + runtime()
    + framework("g", takes(torch="a"))
    + framework("f", takes(torch="b"))
    + application("x", on=("f", "g")),
    "conflict-of-frameworks-accepted": INDEXES
    + runtime()
    + framework("g", takes(torch="a"))
    + framework("f", takes(torch="b"))
    + application("x", accepts(a="b"), on=("f", "g")),
    "conflict-of-three": INDEXES
    + runtime()
    + framework("g", takes(torch="a"))
    + framework("f", takes(torch="b"))
    + application("x", takes(torch="c"), accepts(a="b", b="c"), on=("f", "g")),
    "conflict-of-three-half-accepted": INDEXES
    + runtime()
    + framework("g", takes(torch="a"))
    + framework("f", takes(torch="b"))
    + application("x", takes(torch="c"), accepts(a="b"), on=("f", "g")),
    "runtime-through-a-framework": INDEXES
    + runtime("py", takes(torch="a"))
    + framework("X", takes(torch="b"), accepts(a="b"))
    + framework("Y")
    + application("z", accepts(b="a"), on=("Y", "X")),
    "runtime-through-a-later-framework": INDEXES
    + runtime("py", takes(torch="a"))
    + framework("X", takes(torch="b"), accepts(a="b"))
    + framework("Y")
    + application("z", accepts(a="b"), on=("X", "Y")),
    "runtime-through-a-framework-not-accepted": INDEXES
    + runtime("py", takes(torch="a"))
    + framework("X", takes(torch="b"), accepts(a="b"))
    + framework("Y")
    + application("z", on=("X", "Y")),
    "override-of-what-agrees": INDEXES
    + runtime()
    + framework("X", takes(torch="b", numpy="b"))
    + framework("Y", takes(torch="a", numpy="b"))
    + application("z", accepts(b="a"), on=("Y", "X")),
    "override-unknown": INDEXES + runtime("py", accepts(zz="yy")),
    "sources": INDEXES + '[tool.uv.sources]\nTorch = { index = "a" }\n' + runtime() + framework("f", takes(torch="b")),
    "source-with-marker": INDEXES + '[tool.uv.sources]\nx = { index = "a", marker = "extra == \'x\'" }\n' + runtime(),
    "source-list": INDEXES + '[tool.uv.sources]\nx = [{ index = "a" }]\n' + runtime(),
    "source-from-git": INDEXES + '[tool.uv.sources]\nx = { git = "https://example.org" }\n' + runtime(),
    "source-unknown": INDEXES + '[tool.uv.sources]\nx = { index = "zz" }\n' + runtime(),
    "source-two-spellings": INDEXES + '[tool.uv.sources]\nx = { index = "a" }\nX = { index = "a" }\n' + runtime(),
    "two-indexes-of-one-name": INDEXES + INDEXES + runtime(),
    "index-without-url": '[[tool.uv.index]]\nname = "a"\n' + runtime(),
    "uv-empty": "[tool.uv]\n" + runtime(),
    "uv-is-a-number": "[tool]\nuv = 3\n" + runtime(),
    "uv-settings": "[tool.uv]\noverride-dependencies = ['x>1']\nno-build = false\nprerelease = 'allow'\n" + runtime(),
    # modules
    "support-order": runtime()
    + application("x", 'support_modules = ["pack", "lib-x.py", "lib/u.py", "notes.txt", "../above.py", "B.py"]'),
    "launch-is-support": runtime() + application("x", 'support_modules = ["lib/u.py"]', launch="u.py"),
    "support-same-name": runtime() + application("x", 'support_modules = ["lib/u.py", "u.py"]'),
    "support-same-stem": runtime() + application("x", 'support_modules = ["u.py", "u.txt"]'),
    "support-twice": runtime() + application("x", 'support_modules = ["u.py", "u.py"]'),
    "support-missing": runtime() + application("x", 'support_modules = ["gone.py"]'),
    "launch-missing-on-disabled": runtime("py", "platforms = []") + application("x", launch="gone.py"),
}  # fmt: skip

NAMES = (
    "cpython@3.11", "F@1", "r[red]x", "a.b", "with space", "ümlaut", "日本", "-dash", "x:y", "a*b", "q?", "a|b", "a'b",
    "~", "100%", ".hidden", "__x", "__venvstacks__", "wheel", "fetch", "app-x", "framework-x", "win_amd64", "CON",
    "trailing.", "trailing ", " leading", "a\\b", "a/b", "", ".", "..", "n" * 150,
)  # fmt: skip
for _name in NAMES:
    STACKS[f"runtime {_name}"] = runtime(_name)
    STACKS[f"framework {_name}"] = runtime() + framework(_name)
    STACKS[f"application {_name}"] = runtime() + application(_name)

for _platforms in ("", '"linux_x86_64"', '"win_amd64", "linux_x86_64"', '"linux_amd64"', '""', '"macosx_arm64"'):
    STACKS[f"platforms {_platforms}"] = runtime("py", f"platforms = [{_platforms}]") + framework("a")
    STACKS[f"platforms above {_platforms}"] = (
        runtime() + framework("a", f"platforms = [{_platforms}]") + application("x", on=("a",))
    )

for _target in (
    "glibc", "glibc@2.17", "glibc@2.99", "glibc@ 2.28", "glibc@", "glibc@2", "glibc@2.28.1", "glibc@2.x", "musl@1", "",
    "GLIBC@2.28", "glibc@-2.28",
):  # fmt: skip
    STACKS[f"linux_target {_target}"] = runtime("py", f'linux_target = "{_target}"') + framework("a")

for _target in ("13", "13.0", "11.0", "13.1.2", "x", "13.x", ""):
    STACKS[f"macosx_target {_target}"] = runtime("py", f'macosx_target = "{_target}"') + framework("a")

for _python in (
    "cpython@3.11.9", "pypy@3.10.14", "pypy@7.3.17", "cpython@3.14.0rc2", "cpython", "cpython@3.11", "cpython@",
    "cpython@3.13.0t", "cpython@3.12.9-32",
):  # fmt: skip
    STACKS[f"python {_python}"] = runtime("py", python=_python)

for _requirement in (
    "numpy", " numpy ", "\tnumpy\n", "numpy >= 2", "numpy>=2,<3", "numpy[a]", "numpy [ a , b ] == 1.* ; os_name > '3' ",
    "NumPy", "numpy;sys_platform=='win32'", "numpy ; extra == 'x'", "numpy (>=2)", "numpy==2.0+local", "numpy===x",
    "numpy~=2.0", "numpy[]", "x.y_z-a", "numpy>= 2 , < 3", "numpy >> 2", "", "   ", "-e .", "./x", "numpy # why",
    "numpy ; python_version", "a b", "numpy>=2 --hash=sha256:1", "numpy>=", "numpy;", "numpy @ https://example.org/n.whl",
):  # fmt: skip
    STACKS[f"requirement {_requirement!r}"] = runtime("py", requires=json.dumps(_requirement))

for _newer in (
    '"2025-01-01T00:00:00Z"', '"2025-01-01"', '"2025-01-01 00:00"', '"nonsense"', "3", '""', "2025-01-01", '"1 week"'
):  # fmt: skip
    STACKS[f"exclude-newer {_newer}"] = f"[tool.uv]\nexclude-newer = {_newer}\n" + runtime()

for _launch in (
    "app.py", "my-app.py", "a.b.py", "json.py", "notes.txt", "script", "pack", "pack/", "bare", "v1.2", "../above.py",
    "./lib/../app.py", "gone.py", "", ".",
):  # fmt: skip
    STACKS[f"launch {_launch}"] = runtime() + application("x", launch=_launch)

REFUSED = {
    # Two layers would be one folder, on this file system or on another.
    "case-alone": "duplicate-name",
    "encoding-alone": "duplicate-name",
    "runtime-called-as-an-application": "reserved-name",
    "runtime app-x": "reserved-name",
    "runtime framework-x": "reserved-name",
    # The name is no folder's, has a separator on some system, or means something else.
    "runtime .": "bad-name",
    "framework ": "bad-name",
    "application ": "bad-name",
    "runtime a\\b": "bad-name",
    "framework a\\b": "bad-name",
    "application a\\b": "bad-name",
    "runtime __venvstacks__": "reserved-name",
    "runtime wheel": "reserved-name",
    "runtime fetch": "reserved-name",
    # Types that venvstacks does not look at.
    "requirements-is-a-string": "wrong-type",
    "versioned-is-a-string": "wrong-type",
    "frameworks-is-a-string": "wrong-type",
    # What venvstacks fails with later.
    "linux_target glibc@-2.28": "bad-target",
    "macosx_target x": "bad-target",
    "macosx_target 13.x": "bad-target",
    "macosx_target ": "bad-target",
    "python cpython": "bad-python-version",
    "python cpython@3.11": "bad-python-version",
    "python cpython@": "bad-python-version",
    "python cpython@3.13.0t": "bad-python-version",
    "python cpython@3.12.9-32": "bad-python-version",
    "requirement 'numpy @ https://example.org/n.whl'": "url-requirement",
    "two-indexes-of-one-name": "duplicate-index",
    "index-without-url": "missing-field",
    "launch ": "bad-module",
    "launch .": "bad-module",
    # Refused by venvstacks for runtimes; for other layers it takes the last one.
    "two-spellings-above": "duplicate-source",
}
"""Accepted by venvstacks, and what Strata says."""

ACCEPTED = {
    # The hint that venvstacks gives is `index_overrides = { b = "b" }`.
    "override-of-what-agrees",
    # TOML's own dates, and spans as uv has them.
    "exclude-newer 2025-01-01",
    'exclude-newer "1 week"',
}
"""Refused by venvstacks alone."""

MORE_INDEXES = {"sources", "source-with-marker"}
"""venvstacks leaves an explicit index out that only `[tool.uv.sources]` names, and uv then fails."""


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give the stack file of each case, with the modules that applications name."""
    top = tmp_path_factory.mktemp("specs")
    found = {}
    for number, (name, text) in enumerate(STACKS.items()):
        folder = top / str(number) / "stack"
        for file in FILES:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).touch()
        found[name] = folder / "stack.toml"
        found[name].write_text(text, encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def real(paths: dict[str, Path], pytestconfig: pytest.Config) -> dict[str, Any]:
    """Give what the real venvstacks makes of each."""
    assert pytestconfig.cache is not None
    python = environment(pytestconfig.cache.mkdir("venvstacks"))
    done = subprocess.run(
        [str(python), "-I", "-c", REAL],
        input=json.dumps({name: str(path) for name, path in paths.items()}),
        env={name: value for name, value in uv_environ().items() if name != "UV_EXCLUDE_NEWER"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def described(stack: Stack, each: Layer, modules: Mapping[str, ApplicationModules]) -> dict[str, Any]:
    spec, own = each.spec, modules.get(each.env_name)
    return {
        "env_name": each.env_name,
        "versioned": spec.versioned,
        "platforms": sorted(each.platforms),
        "below": [below.env_name for below in each.below],
        "runtime": each.base.env_name if each.base else None,
        "package_indexes": each.package_indexes,
        "requirements": [str(Requirement(text)) for text in spec.requirements],
        "dynlib_exclude": list(spec.dynlib_exclude),
        "linux_target": spec.linux_target,
        "macosx_target": spec.macosx_target,
        "lock": f"pylock.{each.env_name.replace('.', '_')}.toml",
        "uv": layer_config(stack, each).tool_uv(),
        "launch": [own.launch.import_name, own.launch.file_name] if own else None,
        "support": [[module.import_name, module.file_name] for module in own.support] if own else [],
    }


def told_to_uv(described: dict[str, Any], *, more_indexes: bool) -> None:
    """Leave out what means nothing: flags that are off, a repeated index, in which order explicit ones are listed."""
    uv = described["uv"]
    uv.pop("constraint-dependencies", None)
    indexes = [{key: value for key, value in index.items() if value is not False} for index in uv.pop("index", [])]
    explicit = [] if more_indexes else sorted(index["name"] for index in indexes if index.get("explicit"))
    uv["index"] = list({index["url"]: index for index in indexes if not index.get("explicit")}.values())
    uv["explicit"] = explicit


class Read(NamedTuple):
    """A stack file as Strata reads it."""

    stack: Stack
    modules: Mapping[str, ApplicationModules]


def read(path: Path) -> Read | SpecError:
    try:
        stack = load_stack(path, Path.read_bytes, name="stack.toml", env={})
        return Read(stack, application_modules(stack, Path.read_bytes, Path.exists))
    except SpecError as error:
        return error


@pytest.mark.parametrize("name", STACKS)
def test_both_read_the_same(name: str, paths: dict[str, Path], real: dict[str, Any]) -> None:
    theirs = real[name]
    found = read(paths[name])
    if isinstance(found, SpecError):
        assert all(diagnostic.place is not None for diagnostic in found.diagnostics)
        assert "refused" in theirs or REFUSED[name] in {diagnostic.id for diagnostic in found.diagnostics}
        return
    assert name not in REFUSED
    assert ("refused" in theirs) == (name in ACCEPTED), theirs
    if "refused" in theirs:
        return
    ours = [described(found.stack, each, found.modules) for each in found.stack.layers]
    for each in (*ours, *theirs["layers"]):
        told_to_uv(each, more_indexes=name in MORE_INDEXES)
    assert ours == theirs["layers"]
    deprecated = sum(warning.id == "deprecated-field" for warning in found.stack.warnings)
    assert deprecated == theirs["deprecated"]


def test_what_is_listed_as_different_is(real: dict[str, Any]) -> None:
    assert {name for name in REFUSED if "refused" in real[name]} == set()
    assert {name for name in ACCEPTED if "refused" not in real[name]} == set()
