"""Bad stack files: what is wrong, where, what was expected, what to do. Each message as a newcomer reads it, whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from refusals import here, refused
from space import STACK, Ran, Space

Strata = Callable[..., Ran]

RUNTIME = """\
[[runtimes]]
name = "py"
python_implementation = "cpython@3.12.9"
requirements = []
"""
LOCAL = '[tool.strata.runtimes."py"]\n'


def framework(name: str, *below: str, more: str = "") -> str:
    on = f"frameworks = {list(below)}" if below else 'runtime = "py"'
    return f'[[frameworks]]\nname = "{name}"\n{on}\nrequirements = []\n{more}'


def application(name: str, *below: str, more: str = 'launch_module = "app.py"\n') -> str:
    return framework(name, *below, more=more).replace("frameworks]]", "applications]]")


@pytest.fixture
def strata(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    plain_environment: None,
) -> Strata:
    """Give the command line in an empty folder."""
    (tmp_path / "workspace").mkdir()
    monkeypatch.chdir(tmp_path / "workspace")
    return partial(here, capsys)


BAD = {
    "nobody-s-home": (
        '[tool.uv]\nfind-links = ["~nobody-of-this-name/wheels"]\n',
        """\
error[missing-folder]: there is no folder or page `~nobody-of-this-name/wheels` to take wheels from
  --> strata.toml:2:15
   |
 2 | find-links = ["~nobody-of-this-name/wheels"]
   |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
hint: paths start from the folder of the stack file
""",
    ),
    "no-path-at-all": (
        '[tool.uv]\nfind-links = ["whe\\u0000els"]\n',
        """\
error[missing-folder]: there is no folder or page `whe els` to take wheels from
  --> strata.toml:2:15
   |
 2 | find-links = ["whe\\u0000els"]
   |               ^^^^^^^^^^^^^^
hint: paths start from the folder of the stack file
""",
    ),
    "malformed-index-url": (
        '[[tool.uv.index]]\nname = "own"\nurl = "https://[::1/simple"\n',
        """\
error[bad-index-url]: `https://[::1/simple` is not a URL: its host or port cannot be read
  --> strata.toml:3:7
   |
 3 | url = "https://[::1/simple"
   |       ^^^^^^^^^^^^^^^^^^^^^
""",
    ),
    "malformed-port": (
        '[tool.uv]\nfind-links = ["https://example.org:port/wheels", "file://]/wheels"]\n',
        """\
error[bad-index-url]: `https://example.org:port/wheels` is not a URL: its host or port cannot be read
  --> strata.toml:2:15
   |
 2 | find-links = ["https://example.org:port/wheels", "file://]/wheels"]
   |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
error[bad-index-url]: `file://]/wheels` is not a URL: its host or port cannot be read
  --> strata.toml:2:50
   |
 2 | find-links = ["https://example.org:port/wheels", "file://]/wheels"]
   |                                                  ^^^^^^^^^^^^^^^^^
""",
    ),
    "malformed-requirement-url": (
        RUNTIME.replace("[]", '["x @ https://on].example/x-1.0-py3-none-any.whl"]'),
        """\
error[url-requirement]: runtime `py` takes `x` from a URL whose host or port cannot be read
  --> strata.toml:4:17
   |
 4 | requirements = ["x @ https://on].example/x-1.0-py3-none-any.whl"]
   |                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
hint: a layer is made of wheels: write `NAME`, `NAME>=1.0` or `NAME[EXTRA]==1.0` for what a package index serves, or \
`NAME @ URL` with the `file://` or `https://` URL of one wheel; build a wheel of anything else
""",
    ),
    "malformed-runtime-url": (
        RUNTIME + LOCAL + f'provider = "archive"\nurl = "https://[/p.tar.gz"\nsha256 = "{"a" * 64}"\n',
        """\
error[bad-url]: `url` of runtime `py` is not the URL of an archive
  --> strata.toml:7:7
   |
 7 | url = "https://[/p.tar.gz"
   |       ^^^^^^^^^^^^^^^^^^^^
hint: it begins with `https://`, `http://` or `file://`
""",
    ),
    "misspelt-field": (
        RUNTIME + 'platfroms = ["linux_x86_64"]\n',
        """\
error[unknown-field]: runtime `py` has no field `platfroms`
  --> strata.toml:5:1
   |
 5 | platfroms = ["linux_x86_64"]
   | ^^^^^^^^^
hint: did you mean `platforms`?
""",
    ),
    "unknown-field": (
        "[tool.strata]\ncolour = true\n",
        """\
error[unknown-field]: `tool.strata` has no field `colour`
  --> strata.toml:2:1
   |
 2 | colour = true
   | ^^^^^^
hint: `tool.strata` may have `runtimes`, `conflicts`, `dynlib`, `archive`, `entry_points`, `remote`, `epoch`
""",
    ),
    "wrong-type": (
        RUNTIME.replace("[]", '"numpy"'),
        """\
error[wrong-type]: `requirements` of runtime `py` must be an array of strings, not a string
  --> strata.toml:4:16
   |
 4 | requirements = "numpy"
   |                ^^^^^^^
hint: put it in brackets: `[…]`
""",
    ),
    "not-a-value": (
        RUNTIME + "versioned = yes\n",
        """\
error[toml-syntax]: this is not TOML: invalid value
  --> strata.toml:5:13
   |
 5 | versioned = yes
   |             ^
hint: strings are in quotes
""",
    ),
    "open-string": (
        '[[runtimes]]\nname = "py\n',
        """\
error[toml-syntax]: this is not TOML: the string does not end on its line
  --> strata.toml:2:11
   |
 2 | name = "py
   |           ^
hint: close it with `"`; `\"""` is for text of several lines
""",
    ),
    "open-bracket": (
        RUNTIME + "platforms = [\n",
        """\
error[toml-syntax]: this is not TOML: it ends in the middle of a value
  --> strata.toml:5:13
   |
 5 | platforms = [
   |             ^
hint: write the rest of it, or close its bracket or quote
""",
    ),
    "key-given-twice": (
        RUNTIME + 'name = "other"\n',
        """\
error[toml-syntax]: this is not TOML: this name is defined twice
  --> strata.toml:5:1
   |
 5 | name = "other"
   | ^^^^^^^^^^^^^^
hint: remove one of the two, or write `[[…]]` for one more table of an array
""",
    ),
    "nested-too-deeply": (
        "a = " + "[" * 5000 + "]" * 5000,
        """\
error[toml-syntax]: this is not TOML that can be read: it is nested too deeply
  --> strata.toml
""",
    ),
    "number-too-long": (
        RUNTIME + "versioned = " + "9" * 5000,
        """\
error[toml-syntax]: this is not TOML that can be read: an integer is too large
  --> strata.toml:5:13
""",
    ),
    "number-too-large": (
        "[tool.strata.archive]\nlevel = 99999999999999999999\n",
        """\
error[bad-level]: the archive format `tar.xz` has no level 99999999999999999999
  --> strata.toml:2:9
   |
 2 | level = 99999999999999999999
   |         ^^^^^^^^^^^^^^^^^^^^
hint: levels are 0 to 9
""",
    ),
    "version-too-large": (
        RUNTIME.replace("3.12.9", "3.12.123456789"),
        """\
error[bad-python-version]: runtime `py` has no full Python version in `cpython@3.12.123456789`
  --> strata.toml:3:25
   |
 3 | python_implementation = "cpython@3.12.123456789"
   |                         ^^^^^^^^^^^^^^^^^^^^^^^^
hint: write all three parts of the version, such as `cpython@3.12.9`
""",
    ),
    "libc-too-large": (
        RUNTIME + 'linux_target = "glibc@2.99999999999"\n',
        """\
error[bad-target]: runtime `py`: Linux libc version must be of the form `X.Y`, not `2.99999999999`
  --> strata.toml:5:16
   |
 5 | linux_target = "glibc@2.99999999999"
   |                ^^^^^^^^^^^^^^^^^^^^^
""",
    ),
    "duplicate-name": (
        RUNTIME + RUNTIME,
        """\
error[duplicate-name]: runtime names must be distinct: `py` is already defined
  --> strata.toml:6:8
   |
 6 | name = "py"
   |        ^^^^
note: the first one is on line 2
""",
    ),
    "reserved-name": (
        RUNTIME.replace('"py"', '"fetch"'),
        """\
error[reserved-name]: no runtime may be called `fetch`: labels such as `fetch/…` mean something else
  --> strata.toml:2:8
   |
 2 | name = "fetch"
   |        ^^^^^^^
hint: choose another name, such as `python-fetch`
""",
    ),
    "name-with-a-separator": (
        RUNTIME.replace('"py"', '"../py"'),
        """\
error[bad-name]: the name of runtime `../py` contains `/`
  --> strata.toml:2:8
   |
 2 | name = "../py"
   |        ^^^^^^^
hint: a layer's name becomes the name of a folder: letters, digits, `-`, `_`, `.` and `@` are good
""",
    ),
    "unknown-runtime": (
        RUNTIME + framework("a").replace('"py"', '"pi"'),
        """\
error[unknown-runtime]: framework `a` references unknown runtime `pi`
  --> strata.toml:7:11
   |
 7 | runtime = "pi"
   |           ^^^^
hint: runtimes are `py`
""",
    ),
    "unknown-framework": (
        RUNTIME + framework("science") + application("x", "scince"),
        """\
error[unknown-framework]: application `x` references unknown framework `scince`
   --> strata.toml:11:15
    |
 11 | frameworks = ['scince']
    |               ^^^^^^^^
hint: did you mean `science`?
""",
    ),
    "forward-reference": (
        RUNTIME + framework("b", "a") + framework("a"),
        """\
error[forward-reference]: framework `b` references framework `a`, which is defined after it
  --> strata.toml:7:15
   |
 7 | frameworks = ['a']
   |               ^^^
note: `a` is defined on line 10
hint: move the table of `a` above that of `b`
""",
    ),
    "cycle": (
        RUNTIME + framework("a", "b") + framework("b", "c") + framework("c", "a"),
        """\
error[dependency-cycle]: frameworks need each other: `a` → `b` → `c` → `a`
  --> strata.toml:7:15
   |
 7 | frameworks = ['b']
   |               ^^^
hint: remove one of these references
""",
    ),
    "inconsistent-runtimes": (
        RUNTIME
        + RUNTIME.replace('"py"', '"other"')
        + framework("a")
        + framework("b").replace('"py"', '"other"')
        + application("x", "a", "b"),
        """\
error[inconsistent-runtimes]: the frameworks of application `x` stand on different runtimes
   --> strata.toml:19:20
    |
 19 | frameworks = ['a', 'b']
    |                    ^^^
note: `a` requires runtime `py`
note: `b` requires runtime `other`
hint: all frameworks of a layer must stand on one runtime
""",
    ),
    "no-linear-order": (
        RUNTIME
        + framework("a")
        + framework("b")
        + framework("x", "a", "b")
        + framework("y", "b", "a")
        + application("z", "x", "y"),
        """\
error[linearization-failed]: no order of the frameworks of application `z` suits all of them
   --> strata.toml:23:14
    |
 23 | frameworks = ['x', 'y']
    |              ^^^^^^^^^^
note: framework `x` wants the order `a`, `b`
note: framework `y` wants the order `b`, `a`
hint: name the frameworks in one order everywhere: the first one is found first
""",
    ),
    "bad-requirement": (
        RUNTIME.replace("[]", '["six", "numpy >> 2"]'),
        """\
error[bad-requirement]: runtime `py` uses invalid requirement syntax: \
expected semicolon (after name with no version specifier) or end
  --> strata.toml:4:31
   |
 4 | requirements = ["six", "numpy >> 2"]
   |                               ^
hint: write it as PEP 508 says, such as `numpy>=2` or `requests[socks]; python_version < '3.13'`
""",
    ),
    "unknown-platform": (
        RUNTIME + 'platforms = ["linux_x86_64", "linux_arm"]\n',
        """\
error[unknown-platform]: runtime `py` specifies an invalid target platform `linux_arm`
  --> strata.toml:5:30
   |
 5 | platforms = ["linux_x86_64", "linux_arm"]
   |                              ^^^^^^^^^^^
hint: did you mean `linux_aarch64`?
""",
    ),
    "missing-launch-module": (
        RUNTIME + framework("a") + application("x", "a"),
        """\
error[missing-module]: the launch module `app.py` does not exist
   --> strata.toml:13:17
    |
 13 | launch_module = "app.py"
    |                 ^^^^^^^^
hint: paths start from the folder of the stack file
""",
    ),
    "conda": (
        RUNTIME + LOCAL + 'provider = ["local", "conda"]\n',
        """\
error[unavailable-provider]: the provider `conda` of runtime `py` is not available yet
  --> strata.toml:6:22
   |
 6 | provider = ["local", "conda"]
   |                      ^^^^^^^
hint: providers are `pbs`, `archive` and `local`
""",
    ),
    "archive-that-is-no-url": (
        RUNTIME + LOCAL + f'provider = "archive"\nurl = "python.tar.gz"\nsha256 = "{"0" * 64}"\n',
        """\
error[bad-url]: `url` of runtime `py` is not the URL of an archive
  --> strata.toml:7:7
   |
 7 | url = "python.tar.gz"
   |       ^^^^^^^^^^^^^^^
hint: it begins with `https://`, `http://` or `file://`
""",
    ),
    "missing-wheel-folder": (
        RUNTIME + '[tool.uv]\nfind-links = ["wheels"]\n',
        """\
error[missing-folder]: there is no folder or page `wheels` to take wheels from
  --> strata.toml:6:15
   |
 6 | find-links = ["wheels"]
   |               ^^^^^^^^
hint: paths start from the folder of the stack file
""",
    ),
    "login-that-cannot-be-read": (
        RUNTIME + '[[tool.uv.index]]\nurl = "https://me:se/cret@example.org/simple"\n',
        """\
error[bad-index-url]: a URL of `index` has a login that cannot be read
  --> strata.toml:6:7
   |
 6 | url = "https://**********@example.org/simple"
   |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
hint: write `https://USER:PASSWORD@HOST/PATH`, with `@`, `:`, `/` and `%` percent-encoded in both
""",
    ),
    "several-at-once": (
        RUNTIME.replace("requirements", "requirments") + framework("a").replace('"py"', "3"),
        """\
error[unknown-field]: runtime `py` has no field `requirments`
  --> strata.toml:4:1
   |
 4 | requirments = []
   | ^^^^^^^^^^^
hint: did you mean `requirements`?
error[wrong-type]: `runtime` of framework `a` must be a string, not an integer
  --> strata.toml:7:11
   |
 7 | runtime = 3
   |           ^
""",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_each_mistake_is_said_at_its_place(strata: Strata, name: str) -> None:
    text, said = BAD[name]
    Path("strata.toml").write_text(text)
    assert strata("check") == (2, "", said)
    # A build says the same, before anything is done.
    assert strata("build", "-q") == (2, "", said)
    assert not Path("_build").exists()
    assert not Path("requirements").exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            b"name = 'ok'\nx = '\xe9'\n",
            "error[toml-syntax]: this is not TOML: it is not UTF-8\n  --> strata.toml:2:6\n"
            "hint: save the file with the encoding UTF-8\n",
        ),
        (
            b"\xef\xbb\xbf# saved by an editor that means well\n",
            "error[toml-syntax]: this is not TOML: it begins with a byte order mark\n  --> strata.toml:1:1\n"
            "hint: save the file as UTF-8 without one\n",
        ),
    ],
)
def test_a_file_in_another_encoding(strata: Strata, data: bytes, said: str) -> None:
    Path("strata.toml").write_bytes(data)
    assert strata("check") == (2, "", said)


def test_stacks_with_nothing_to_build_are_valid(strata: Strata) -> None:
    for text, counted in {
        "": "0 runtimes, 0 frameworks, 0 applications",
        "# only a comment\n": "0 runtimes, 0 frameworks, 0 applications",
        RUNTIME + "platforms = []\n" + framework("a"): "1 runtime, 1 framework, 0 applications",
    }.items():
        Path("strata.toml").write_text(text)
        assert strata("check") == (0, "", f"`strata.toml` is valid: {counted}\n")
        assert strata("build", "-q") == (0, "", "")


def test_check_lists_diagnostics_as_json(strata: Strata) -> None:
    Path("strata.toml").write_text(BAD["missing-launch-module"][0])
    code, out, err = strata("check", "--json")
    assert (code, err) == (2, "")
    assert '"valid": false' in out
    assert '"id": "missing-module"' in out
    assert '"line": 13' in out


def test_a_symlink_that_leads_nowhere(space: Space) -> None:
    (space.root / "world" / "data").symlink_to("../nowhere")
    assert (
        refused(space, "build", "-q", code=2)
        == """\
error[broken-symlink]: the symlink `world/data` leads to `../nowhere`, which is no file or folder
   --> venvstacks.toml:23:8
    |
 23 | name = "world"
    |        ^^^^^^^
hint: remove it, or let it lead to what is meant
"""
    )


def test_what_symlinks_in_a_package_lead_to_is_shipped(built: Space) -> None:
    built.write("shared/tables.py", "ROWS = 3\n")
    (built.root / "world" / "shared").symlink_to("../shared")
    (built.root / "world" / "rows.py").symlink_to(built.root / "shared" / "tables.py")
    assert built.build().executed == {"app-world/link"}
    shipped = built.site("app-world") / "world"
    for path in (shipped / "rows.py", shipped / "shared" / "tables.py"):
        assert path.read_text() == "ROWS = 3\n"
        assert not path.is_symlink()
    built.write("shared/tables.py", "ROWS = 4\n")
    assert built.build().executed == {"app-world/link"}


def test_a_runtime_called_as_a_platform_is_in_the_way_of_that_platform_alone(space: Space) -> None:
    text = space.read("venvstacks.toml").replace('"python"', '"win_amd64"')
    space.write("venvstacks.toml", text)
    said = refused(space, "build", "--platform", "win_amd64", code=2)
    assert said.startswith(
        "error[platform-name]: runtime `win_amd64` is called as the folder of layers for `win_amd64`\n"
    )
    assert "--> venvstacks.toml:2:8" in said
    space.ok("build")
    assert space.layer("win_amd64").is_dir()


def test_two_layers_that_would_be_deployed_in_one_folder(space: Space) -> None:
    versioned = space.read("venvstacks.toml").replace('name = "low"\n', 'name = "low"\nversioned = true\n')
    other = framework("LOW@1").replace('"py"', '"python"') + "[[applications]]"
    space.write("venvstacks.toml", versioned.replace("[[applications]]", other, 1))
    shutil.rmtree(space.root / "requirements")
    warned = "warning[shared-target]: framework `low` is deployed as `framework-LOW@1` when its lock has version 1, as "
    assert space.strata("check").stderr.startswith(f"{warned}framework `LOW@1` is\n   --> venvstacks.toml:18:8\n")
    ran = space.strata("build", "-q")
    assert ran.code == 2
    assert (
        "error[shared-target]: `framework-low` and `framework-LOW@1` would both be deployed in the folder "
        "`framework-LOW@1`\n   --> venvstacks.toml:18:8\n"
    ) in ran.stderr
    assert "note: the lock of `framework-low` has version 1\n" in ran.stderr
    assert not (space.root / "_build").exists()
    # In another version of its lock it is deployed elsewhere.
    space.replace("venvstacks.toml", '"LOW@1"', '"LOW@2"')
    space.ok("build", "-q")


def test_stack_files_of_any_name_in_one_folder(space: Space) -> None:
    text = space.read("venvstacks.toml")
    only = text[: text.index("[[applications]]")] + text[text.index("[tool.uv]") :]
    space.write("layers.stack", only)
    assert space.build("layers.stack").counts["executed"] == 0, "all is known from the template's build"
    assert {path.name for path in (space.root / "_build").iterdir()} == {"python", "framework-low", "framework-up"}
    assert space.build("layers.stack", "framework-up").counts["executed"] == 0
    space.ok("build", "venvstacks.toml")
    assert space.strata("run", "venvstacks.toml", "hello").stdout == "hello alpha gamma\n"
    for name in ("layers.stack", "venvstacks.toml"):
        assert space.build(name).counts["cached"] == 0, "neither undoes what the other built"


def test_archives_asked_for_where_a_file_is(built: Space) -> None:
    built.write("file", "mine")
    said = refused(built, "publish", "-q", "--output-dir", "file", code=3)
    assert f"error[host-error]: cannot use `{built.root}/file`: Not a directory\n" in said
    (built.root / "_artifacts" / "app-world.tar.gz" / "mine").mkdir(parents=True)
    said = refused(built, "publish", "-q", code=3)
    assert f"error[host-error]: cannot use `{built.root}/_artifacts/app-world.tar.gz`: Is a directory\n" in said
    assert (built.root / "file").read_text() == "mine"


def test_a_mistake_costs_nothing_that_was_built(built: Space) -> None:
    built.replace("venvstacks.toml", 'frameworks = ["low"]', 'frameworks = ["lwo"]')
    said = """\
error[unknown-framework]: framework `up` references unknown framework `lwo`
   --> venvstacks.toml:13:15
    |
 13 | frameworks = ["lwo"]
    |               ^^^^^
hint: did you mean `low`?
"""
    for command in (
        ("build", "-q"),
        ("publish",),
        ("run", "hello"),
        ("graph", "show"),
    ):
        assert refused(built, *command, code=2) == said
    built.write("venvstacks.toml", STACK)
    assert built.build().counts["executed"] == 0
