"""C libraries in one layer that extensions and programs of another need: found, left out, missed, and in conflict.

The stack: `libfoo.so.1` in framework `low`, `libbar.so.2` in `mid`, which needs it, and in the application an extension
that needs `libbar.so.2` and one that needs `libfoo.so.1`, two layers below. No search path says where anything is.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from deployed import layer, runtime, say, stack, start, table, unpack
from native import EXTENSION, compiled, needs_gcc
from runtimes import OWN
from space import Space

from strata_rules.platforms import host_platform

pytestmark = [
    needs_gcc,
    pytest.mark.skipif(not host_platform().startswith("linux_"), reason="compiles libraries for Linux"),
]

SITE = f"lib/python{OWN.rpartition('.')[0]}/site-packages"
BAR, FOO = "import deep._fooext as e; print(e.value())", "import two._fooext as e; print(e.value())"


class Native(NamedTuple):
    """What the compiler made."""

    foo: bytes
    bar: bytes
    needs_bar: bytes
    """An extension module."""
    needs_foo: bytes
    """Another one."""
    program: bytes
    """It needs `libfoo.so.1` and prints what that says."""


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Native:
    """Compile everything once."""
    folder = tmp_path_factory.mktemp("native")
    link = (f"-L{folder}", f"-Wl,-rpath-link,{folder}")
    foo = compiled(folder, "libfoo.so.1", "int foo(void) { return 40; }", "-Wl,-soname,libfoo.so.1")
    code = "int foo(void); int bar(void) { return foo() + 2; }"
    bar = compiled(folder, "libbar.so.2", code, "-Wl,-soname,libbar.so.2", *link, "-l:libfoo.so.1")
    (folder / "main.c").write_text('#include <stdio.h>\nint foo(void); int main(void) { printf("%d\\n", foo()); }\n')
    command = ["gcc", "-o", str(folder / "program"), str(folder / "main.c"), *link, "-l:libfoo.so.1"]
    subprocess.run(command, check=True)
    return Native(
        foo,
        bar,
        compiled(folder, "a.so", EXTENSION, *link, "-l:libbar.so.2"),
        compiled(folder, "b.so", EXTENSION, *link, "-Dbar=foo", "-l:libfoo.so.1"),
        (folder / "program").read_bytes(),
    )


def write(
    space: Space,
    native: Native,
    *tables: str,
    low: Mapping[str, Any] | None = None,
    both: Mapping[str, Any] | None = None,
) -> None:
    """Write the stack; `low` is said of that framework, `both` of both."""
    space.wheel("low", {"low.libs/libfoo.so.1.2.3": native.foo})
    space.wheel("mid", {"mid/libbar.so.2": native.bar, "mid/__init__.py": b""})
    extensions = {"deep/_fooext.abi3.so": native.needs_bar, "two/_fooext.abi3.so": native.needs_foo}
    space.wheel("ext", {**extensions, "deep/__init__.py": b"", "two/__init__.py": b""})
    space.write("use.py", f"{BAR}\n{FOO}\n")
    space.write(
        "venvstacks.toml",
        stack(
            runtime(),
            layer("framework", "low", "low", runtime="python", **{**(both or {}), **(low or {})}),
            layer("framework", "mid", "mid", frameworks=["low"], **(both or {})),
            layer("application", "use", "ext", frameworks=["mid"], launch_module="use.py", **(both or {})),
            *tables,
        ),
    )


def test_libraries_of_lower_layers_are_found_wherever_the_layers_are(
    empty: Space, native: Native, tmp_path: Path
) -> None:
    write(empty, native, both={"versioned": True})
    built = empty.ok("publish")
    assert "-library]" not in built.stderr
    place = unpack(empty, tmp_path / "some where")
    assert say(place, "app-use@1", "-m", "use") == "42\n40\n"
    moved = place.rename(tmp_path / "else where")
    assert say(moved, "app-use@1", "-c", FOO) == "40\n"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BAR!r}], env={{}}, check=True)"
    assert say(moved, "app-use@1", "-c", child) == "42\n"
    # What was loaded for it is what its name means from then on; the environment is as it was.
    by_name = f"{FOO}; import ctypes, os; print(ctypes.CDLL('libfoo.so.1').foo(), *os.environ)"
    assert say(moved, "app-use@1", "-c", by_name).startswith("40\n40")
    assert "LD_LIBRARY_PATH" not in say(moved, "app-use@1", "-c", by_name)
    links = {path.name: path.resolve().name for path in (moved / "framework-low@1/share/venv/dynlib").iterdir()}
    assert links == {"libfoo.so.1": "libfoo.so.1.2.3", "libfoo.so.1.2.3": "libfoo.so.1.2.3"}


def test_an_excluded_library_is_missed_where_it_is_needed(empty: Space, native: Native) -> None:
    write(empty, native)
    empty.build()
    write(empty, native, low={"dynlib_exclude": ["low.libs/libfoo*"]})
    built = empty.strata("build")
    assert built.code == 0
    for file in ("two/_fooext.abi3.so", "mid/libbar.so.2"):
        assert f"note: `libfoo.so.1` is needed by `{SITE}/{file}`\n" in built.stderr
    for name in ("framework-mid", "app-use"):
        assert f"warning[unresolved-library]: `{name}` needs `libfoo.so.1`, which no layer offers" in built.stderr
    assert (
        f"note: `framework-low` has it as `{SITE}/low.libs/libfoo.so.1.2.3`, and leaves it out: `dynlib_exclude` has"
        " `low.libs/libfoo*`\n"
    ) in built.stderr
    assert "hint: let `framework-low` offer it: take `low.libs/libfoo*` out of its `dynlib_exclude`;" in built.stderr

    done = start(empty.root / "_build", "app-use", "-c", BAR)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: libfoo.so.1: cannot open shared object file")
    assert list(empty.layer("framework-low").glob("share/venv/dynlib/*")) == []

    # Another pattern for the same files: whoever warns of it says it anew, and no layer changes.
    write(empty, native, low={"dynlib_exclude": ["libfoo.*"]})
    again = empty.publish()
    assert {label for label in again.executed if "/link" in label} == {
        f"{name}/link" for name in ("framework-low", "framework-mid", "app-use")
    }
    write(empty, native, low={"dynlib_exclude": ["**/libfoo.*"]})
    again = empty.publish()
    assert {label.partition("/")[2] for label in again.executed} == {"link"}
    write(empty, native)
    empty.build()
    assert say(empty.root / "_build", "app-use", "-m", "use") == "42\n40\n"


def test_all_conflicts_of_all_layers_are_told_at_once(empty: Space, native: Native) -> None:
    other = native.foo + b"another build"
    empty.wheel("one", {"one/libfoo.so.1": native.foo, "one/libbar.so.2": native.bar})
    empty.wheel("two", {"two/libfoo.so.1": other, "two/libbar.so.2": native.bar + b"another build"})
    for name in ("p", "q"):
        content = {f"{name}/_fooext.abi3.so": native.needs_bar, f"{name}/_other.abi3.so": native.needs_foo}
        empty.wheel(f"need{name}", content)
        empty.write(f"start_{name}.py", "")
    empty.write(
        "venvstacks.toml",
        stack(
            layer("framework", "one", "one", runtime="python"),
            layer("framework", "two", "two", runtime="python"),
            *(
                layer("application", n, f"need{n}", frameworks=["one", "two"], launch_module=f"start_{n}.py")
                for n in "pq"
            ),
        ),
    )
    failed = empty.strata("build", "-k")
    assert failed.code == 1
    assert failed.stderr.count(" --> venvstacks.toml:") == 4
    said = re.sub(r"(?m)^ *(-->|\d* *\|).*\n", "", failed.stderr)
    for name in "pq":
        for library, module in (("libbar.so.2", "_fooext"), ("libfoo.so.1", "_other")):
            assert (
                f"error[library-conflict]: `app-{name}` needs `{library}`, which the layers below offer 2 times\n"
                f"note: offered: `framework-one/{SITE}/one/{library}`\n"
                f"note: offered: `framework-two/{SITE}/two/{library}`\n"
                f"note: needed by `{SITE}/{name}/{module}.abi3.so`\n"
                "hint: leave all but one out with `dynlib_exclude` in the layers that offer it\n"
            ) in said
    assert "Traceback" not in failed.stderr

    spec = empty.read("venvstacks.toml").replace('name = "two"\n', 'name = "two"\ndynlib_exclude = ["two/lib*"]\n')
    empty.write("venvstacks.toml", spec)
    empty.build()
    assert say(empty.root / "_build", "app-q", "-c", BAR.replace("deep", "q")) == "42\n"


LAUNCHED = """\
import ctypes, json, os, subprocess, sys
here = os.path.dirname(__file__)
run = lambda *command: subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode().split()
script = "import ctypes, os; print(ctypes.CDLL('libfoo.so.1').foo()); print(os.environ['LD_LIBRARY_PATH'].count(':'))"
print(json.dumps({
    "by name": ctypes.CDLL("libfoo.so.1").foo(),
    "program": run(os.path.join(here, "program")),
    "child": run(sys.executable, "-c", script),
    "folders": os.environ["LD_LIBRARY_PATH"].split(":"),
    "hidden": "__PYVENV_LAUNCHER__" in os.environ,
    "executable": sys.executable, "prefix": sys.prefix,
}))
"""


def test_a_launcher_serves_programs_and_bare_names(empty: Space, native: Native, tmp_path: Path) -> None:
    write(empty, native, table("tool.strata", dynlib="launcher"), both={"versioned": True})
    empty.write("use/__init__.py", "")
    empty.write("use/__main__.py", LAUNCHED)
    empty.write("use/program", native.program).chmod(0o755)
    empty.replace("venvstacks.toml", 'launch_module = "use.py"', 'launch_module = "use"')
    empty.publish()
    place = unpack(empty, tmp_path / "some where")
    script = (place / "app-use@1/bin/python").read_text()
    assert script.startswith("#!/bin/sh\n")
    assert "exec -a" not in script
    for folder in (place, tmp_path / "and $HOME 'else' where"):
        if folder != place:
            place.rename(folder)
        app = folder / "app-use@1"
        said = json.loads(say(folder, "app-use@1", "-m", "use"))
        frameworks = [f"{folder}/framework-{name}@1/share/venv/dynlib" for name in ("mid", "low")]
        assert said["folders"] == frameworks, "the runtime has no libraries for others"
        assert (said["by name"], said["program"], said["child"]) == (40, ["40"], ["40", "1"])
        assert (said["executable"], said["prefix"], said["hidden"]) == (f"{app}/bin/python", str(app), False)
        assert say(folder, "app-use@1", "-c", BAR) == "42\n"
    # By a symlink from elsewhere, on another's path, and with what the user has set, which goes first.
    (tmp_path / "link").symlink_to(app / "bin/python")
    done = subprocess.run(
        [
            tmp_path / "link",
            "-c",
            "import ctypes, os; print(ctypes.CDLL('libfoo.so.1').foo(), os.environ['LD_LIBRARY_PATH'])",
        ],
        capture_output=True,
        text=True,
        check=True,
        env={"LD_LIBRARY_PATH": "/mine"},
        cwd="/",
    )
    assert done.stdout == f"40 /mine:{':'.join(frameworks)}\n"
    relative = subprocess.run(
        ["../app-use@1/bin/python", "-c", FOO],
        capture_output=True,
        text=True,
        check=True,
        env={},
        cwd=folder / "python",
    )
    assert relative.stdout == "40\n"
