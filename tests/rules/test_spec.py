from pathlib import Path

import pytest

from strata_engine.errors import SpecError, render
from strata_rules.platforms import PLATFORMS
from strata_rules.spec.load import ApplicationSpec, RuntimeSource, RuntimeSpec, load_stack

FILE = Path("stacks") / "venvstacks.toml"


def load(text, *, others=None, env=None):
    files = {FILE: text} | {FILE.absolute().parent / name: body for name, body in (others or {}).items()}

    def read(path):
        return files[path].encode()

    return load_stack(FILE, read, name="venvstacks.toml", probe=lambda path: path in files, env=env or {})


def problems(text, **options):
    with pytest.raises(SpecError) as caught:
        load(text, **options)
    assert caught.value.exit_code == 2
    return "\n\n".join(render(each) for each in caught.value.diagnostics) + "\n"


RUNTIME = """\
[[runtimes]]
name = "py"
python_implementation = "cpython@3.12.9"
requirements = []
"""


def framework(name, *frameworks):
    on = f"frameworks = {list(frameworks)}" if frameworks else 'runtime = "py"'
    return f'[[frameworks]]\nname = "{name}"\n{on}\nrequirements = []\n'


def application(name, *frameworks):
    return framework(name, *frameworks).replace("frameworks]]", "applications]]") + 'launch_module = "app.py"\n'


EVERYTHING = """\
[tool.uv]
exclude-newer = "2025-01-01T00:00:00Z"
[[tool.uv.index]]
name = "cpu"
url = "https://example.org/cpu"
explicit = true
[[tool.uv.index]]
name = "main"
url = "https://example.org/simple"

[[applications]]
name = "report"
frameworks = ["upper"]
launch_module = "report.py"
support_modules = ["lib/more.py", "lib/pack"]
requirements = ["rich ; python_version > '3'"]
index_overrides = { cpu = "main" }

[[frameworks]]
name = "lower"
runtime = "py"
requirements = []
package_indexes = { pytorch = "cpu" }

[[frameworks]]
name = "upper"
frameworks = ["lower"]
requirements = [" numpy>=2\\t", "requests[socks]==2.32.*"]
platforms = ["linux_x86_64", "win_amd64"]
versioned = true
linux_target = "glibc@2.35"
macosx_target = "14.1"
dynlib_exclude = ["triton/**", "*"]
package_indexes = { PyTorch = "main" }
index_overrides = { cpu = "main" }
priority_indexes = ["main"]

[[runtimes]]
name = "py"
python_implementation = "cpython@3.12.9"
requirements = []
platforms = ["win_amd64", "linux_x86_64", "macosx_arm64"]

[tool.strata]
conflicts = "error"
dynlib = "launcher"
entry_points = true
archive = { format = "tar.zst", level = 19 }
[tool.strata.runtimes."py"]
provider = ["local", "archive"]
accept = ">=3.11,<3.15"
url = { linux_x86_64 = "https://example.org/l.tar.zst", win_amd64 = "https://example.org/w.tar.zst" }
sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
"""


def test_every_field_is_read_and_layers_are_in_build_order():
    stack = load(EVERYTHING)
    assert [layer.env_name for layer in stack.layers] == ["py", "framework-lower", "framework-upper", "app-report"]
    runtime, lower, upper, report = stack.layers
    assert stack.root == FILE.absolute().parent
    assert (runtime.implementation, runtime.version, report.python) == ("cpython", "3.12.9", "3.12")
    assert isinstance(runtime.spec, RuntimeSpec)
    assert (runtime.runtime, runtime.lower) == (runtime, ())
    assert (upper.below, upper.lower) == ((lower,), (lower, runtime))
    assert (report.below, report.runtime) == ((upper, lower), runtime)
    assert runtime.platforms == ("win_amd64", "linux_x86_64", "macosx_arm64") == lower.platforms
    assert upper.platforms == ("win_amd64", "linux_x86_64") == report.platforms
    assert (upper.linux_target, upper.macosx_target, upper.spec.versioned) == ("glibc@2.35", "14.1", True)
    assert (report.linux_target, report.macosx_target, report.spec.versioned) == ("glibc@2.28", "13.0", False)
    # Whether it was written counts in venvstacks' hashes.
    assert report.spec.linux_target is None
    assert upper.spec.dynlib_exclude == ("triton/**", "*")
    assert upper.spec.requirements == ("numpy>=2", "requests[socks]==2.32.*")
    assert lower.package_indexes == {"pytorch": "cpu"}
    assert upper.package_indexes == {"pytorch": "main"} == report.package_indexes
    assert isinstance(report.spec, ApplicationSpec)
    assert report.spec.support_modules == ("lib/more.py", "lib/pack")
    assert (stack.strata.conflicts, stack.strata.dynlib, stack.strata.entry_points) == ("error", "launcher", True)
    assert (stack.strata.archive.format, stack.strata.archive.level) == ("tar.zst", 19)
    source = stack.runtime_source(report)
    assert source.providers == ("local", "archive")
    assert source.url_for("win_amd64") == "https://example.org/w.tar.zst"
    assert source.url_for("macosx_arm64") is None
    assert source.sha256_for("macosx_arm64") == "0123456789abcdef" * 4
    assert stack.warnings == ()


def test_defaults():
    stack = load(RUNTIME)
    assert stack.runtime_source(stack.layer("py")) == RuntimeSource(provider="pbs")
    assert stack.layer("py").platforms == PLATFORMS
    assert load("").layers == ()


def test_places_of_a_layer():
    report = load(EVERYTHING).layer("app-report")
    assert report.place("support_modules", 1).line == 15
    assert report.place("versioned").line == 11
    assert report.place().text == "[[applications]]"


def test_the_deployment_target_of_macos_is_taken_from_the_environment_where_a_layer_has_none():
    stack = load(RUNTIME + 'macosx_target = "12.0"\n' + framework("f"), env={"MACOSX_DEPLOYMENT_TARGET": "15.0"})
    assert [layer.macosx_target for layer in stack.layers] == ["12.0", "15.0"]
    said = problems(RUNTIME, env={"MACOSX_DEPLOYMENT_TARGET": "new"})
    assert said.startswith("error[bad-target]: the variable `MACOSX_DEPLOYMENT_TARGET` is wrong: macOS target must be")


LINEAR = "".join(
    (
        application("empty", "D", "F@1"),
        framework("A"),
        framework("B", "A"),
        framework("C", "A"),
        framework("D", "B", "C"),
        framework("E", "B"),
        framework("F@1", "E"),
        RUNTIME,
    )
)


def test_frameworks_are_linearised_as_base_classes_are_whatever_the_order_of_kinds_in_the_file():
    stack = load(LINEAR)
    orders = [(layer.name, [below.name for below in layer.below]) for layer in stack.layers]
    assert orders == [
        ("py", []),
        ("A", []),
        ("B", ["A"]),
        ("C", ["A"]),
        ("D", ["B", "C", "A"]),
        ("E", ["B", "A"]),
        ("F@1", ["E", "B", "A"]),
        ("empty", ["D", "F@1", "E", "B", "C", "A"]),
    ]
    assert stack.layer("app-empty").lower[-1] is stack.layer("py")


def test_a_disabled_layer_disables_those_above_it():
    stack = load(RUNTIME + framework("a") + "platforms = []\n" + framework("b", "a"))
    assert [layer.platforms for layer in stack.layers] == [PLATFORMS, (), ()]


def test_names_that_were_allowed_still_are():
    names = [
        "cpython@3.11",
        "layerF@1",
        "r[red]x",
        "a.b",
        "with space",
        "ümlaut",
        ".hidden",
        "__x",
        "win_amd64",
        "x" * 180,
    ]
    tables = (RUNTIME.replace('"py"', f'"{name}"') for name in names)
    assert [layer.name for layer in load("".join(tables)).layers] == names
    # Behind a prefix nothing is a folder of its own, a label of its own, or the metadata.
    names = [".", "..", "wheel", "fetch", "app-x", "__venvstacks__"]
    tables = (each(name) for name in names for each in (framework, application))
    assert [layer.name for layer in load(RUNTIME + "".join(tables)).layers] == ["py", *names, *names]


def test_warnings_do_not_stop_and_say_what_to_write_instead():
    text = """\
[[runtime]]
name = "x"
[[runtimes]]
name = "py"
fully_versioned_name = "cpython@3.11.4"
requirements = []
build_requirements = 3
[tool.strata.runtimes.py]
accept = ">=3"
[tool.other]
"""
    stack = load(text)
    assert stack.layer("py").version == "3.11.4"
    assert stack.layer("py").place("python_implementation").line == 5
    assert [each.severity for each in stack.warnings] == ["warning"] * 4
    assert (
        "\n\n".join(map(render, stack.warnings))
        == """\
warning[unknown-key]: a stack file has no `runtime`
  --> venvstacks.toml:1:1
   |
 1 | [[runtime]]
   | ^^^^^^^^^^^
hint: did you mean `runtimes`?

warning[deprecated-field]: `fully_versioned_name` is deprecated
  --> venvstacks.toml:5:1
   |
 5 | fully_versioned_name = "cpython@3.11.4"
   | ^^^^^^^^^^^^^^^^^^^^
hint: write `python_implementation` instead

warning[deprecated-field]: `build_requirements` is deprecated and ignored
  --> venvstacks.toml:7:1
   |
 7 | build_requirements = 3
   | ^^^^^^^^^^^^^^^^^^
hint: remove it

warning[no-effect]: `accept` of runtime `py` has no effect: only the provider `local` may give another version
  --> venvstacks.toml:9:1
   |
 9 | accept = ">=3"
   | ^^^^^^"""
    )


def test_a_missing_file_is_said_with_what_to_do():
    with pytest.raises(SpecError) as caught:
        load_stack(Path("no-such-folder/strata.toml"), Path.read_bytes)
    assert render(caught.value.diagnostics[0]) == (
        "error[missing-file]: there is no stack file `no-such-folder/strata.toml`\nhint: `strata init` makes one"
    )


def test_an_unknown_layer_is_said_with_what_was_meant():
    stack = load(LINEAR)
    for asked, hint in {
        "empty": "did you mean `app-empty`?",
        "framwork-A": "did you mean `framework-A`?",
        "zzzz": "layers are `py`, `framework-A`, ",
    }.items():
        with pytest.raises(SpecError) as caught:
            stack.layer(asked)
        assert caught.value.diagnostics[0].hint.startswith(hint)


def test_all_problems_of_a_file_are_reported_together_and_consequences_are_not():
    text = """\
[[runtimes]]
name = "py"
python_implementation = "cpython@3.12"
requirements = ["numpy>>2", 3]
platfroms = ["linux_x86_64"]

[[frameworks]]
name = "a"
runtime = "pz"
requirements = "numpy"

[[frameworks]]
name = "b"
frameworks = ["a", "c"]

[[applications]]
name = "app"
frameworks = ["b"]
requirements = []
lanch_module = "app.py"
"""
    assert (
        problems(text)
        == """\
error[bad-python-version]: runtime `py` has no full Python version in `cpython@3.12`
  --> venvstacks.toml:3:25
   |
 3 | python_implementation = "cpython@3.12"
   |                         ^^^^^^^^^^^^^^
hint: write all three parts of the version, such as `cpython@3.12.4`

error[wrong-type]: `requirements` of runtime `py` must be an array of strings, but element 2 is an integer
  --> venvstacks.toml:4:29
   |
 4 | requirements = ["numpy>>2", 3]
   |                             ^

error[unknown-field]: runtime `py` has no field `platfroms`
  --> venvstacks.toml:5:1
   |
 5 | platfroms = ["linux_x86_64"]
   | ^^^^^^^^^
hint: did you mean `platforms`?

error[unknown-runtime]: framework `a` references unknown runtime `pz`
  --> venvstacks.toml:9:11
   |
 9 | runtime = "pz"
   |           ^^^^
hint: runtimes are `py`

error[wrong-type]: `requirements` of framework `a` must be an array of strings, not a string
   --> venvstacks.toml:10:16
    |
 10 | requirements = "numpy"
    |                ^^^^^^^
hint: put it in brackets: `[…]`

error[missing-field]: framework `b` has no `requirements`
   --> venvstacks.toml:12:1
    |
 12 | [[frameworks]]
    | ^^^^^^^^^^^^^^
hint: add `requirements = ["numpy"]` or `requirements = []`

error[unknown-framework]: framework `b` references unknown framework `c`
   --> venvstacks.toml:14:20
    |
 14 | frameworks = ["a", "c"]
    |                    ^^^
hint: frameworks are `a`, `b`

error[unknown-field]: application `app` has no field `lanch_module`
   --> venvstacks.toml:20:1
    |
 20 | lanch_module = "app.py"
    | ^^^^^^^^^^^^
hint: did you mean `launch_module`?
"""
    )


BAD = {
    "no-name": (
        '[[runtimes]]\npython_implementation = "cpython@3.12.9"\nrequirements = []\n',
        'error[missing-field]: runtime 1 has no `name`\n1:1 [[runtimes]]\nhint: add `name = "…"`',
    ),
    "duplicate-name": (
        RUNTIME + RUNTIME,
        "error[duplicate-name]: runtime names must be distinct: `py` is already defined\n"
        '6:8 "py"\nnote: the first one is on line 2',
    ),
    "case-alone": (
        RUNTIME + framework("Lib") + framework("lib"),
        "error[duplicate-name]: the names of framework `Lib` and framework `lib` differ in case alone\n"
        '10:8 "lib"\nnote: they are one folder on file systems that ignore case\nnote: the first one is on line 6',
    ),
    "reserved-prefix": (
        RUNTIME.replace('"py"', '"app-x"'),
        "error[reserved-name]: the name of a runtime must not start with `app-`: the folders of applications do\n"
        '2:8 "app-x"\nhint: choose another name',
    ),
    "names-encoded-differently": (
        RUNTIME + framework("caf\u00e9") + framework("cafe\u0301"),
        "error[duplicate-name]: the names of framework `caf\u00e9` and framework `cafe\u0301` "
        "differ in how their letters are encoded alone\n"
        '10:8 "cafe\u0301"\nnote: they are one folder on file systems that normalize names\n'
        "note: the first one is on line 6",
    ),
    "label-name": (
        RUNTIME.replace('"py"', '"wheel"'),
        "error[reserved-name]: no runtime may be called `wheel`: labels such as `wheel/…` mean something else\n"
        '2:8 "wheel"\nhint: choose another name, such as `python-wheel`',
    ),
    "metadata-name": (
        RUNTIME.replace('"py"', '"__venvstacks__"'),
        "error[reserved-name]: no runtime may be called `__venvstacks__`: "
        "the metadata of published layers is in a folder of that name\n"
        '2:8 "__venvstacks__"\nhint: choose another name, such as `python-venvstacks`',
    ),
    "temporary-name": (
        RUNTIME.replace('"py"', '".strata-tmp-1"'),
        "error[reserved-name]: the name of a runtime must not start with `.strata-tmp-`: "
        "outputs that are being written do\n"
        '2:8 ".strata-tmp-1"\nhint: choose another name, such as `python-strata-tmp-1`',
    ),
    "forward-reference": (
        RUNTIME + framework("b", "a") + framework("a"),
        "error[forward-reference]: framework `b` references framework `a`, which is defined after it\n"
        "7:15 'a'\nnote: `a` is defined on line 10\nhint: move the table of `a` above that of `b`",
    ),
    "malformed-version": (
        RUNTIME.replace("@3.12.9", ""),
        "error[bad-python-version]: runtime `py` has no full Python version in `cpython`\n"
        '3:25 "cpython"\nhint: write all three parts of the version, such as `cpython@3.12.9`',
    ),
    "unknown-implementation": (
        RUNTIME.replace("cpython", "python"),
        "error[unknown-implementation]: runtime `py` wants an unknown Python implementation `python`\n"
        '3:25 "python@3.12.9"\nhint: did you mean `cpython`?',
    ),
    "old-and-new-field": (
        RUNTIME + 'fully_versioned_name = "cpython@3.12.9"\n',
        "error[deprecated-field]: runtime `py` has both `fully_versioned_name` and `python_implementation`\n"
        "5:1 fully_versioned_name\nhint: remove `fully_versioned_name`",
    ),
    "field-of-another-kind": (
        RUNTIME + framework("f") + 'launch_module = "x.py"\n',
        "error[unknown-field]: framework `f` has no field `launch_module`\n"
        "9:1 launch_module\nhint: `launch_module` is a field of applications",
    ),
    "not-a-table": (
        "runtimes = [3]\n",
        "error[wrong-type]: each of `runtimes` must be a table, not an integer\n1:13 3",
    ),
    "not-an-array": (
        '[runtimes]\nname = "py"\n',
        "error[wrong-type]: `runtimes` must be an array of tables, not a table\n"
        "1:1 [runtimes]\nhint: write `[[runtimes]]` before each runtime",
    ),
    "wrong-type-in-table": (
        RUNTIME + "package_indexes = { numpy = 3 }\n",
        "error[wrong-type]: `package_indexes` of runtime `py` must be a table of strings, but `numpy` is an integer\n"
        "5:29 3",
    ),
    "wrong-type-boolean": (
        RUNTIME + 'versioned = "yes"\n',
        'error[wrong-type]: `versioned` of runtime `py` must be `true` or `false`, not a string\n5:13 "yes"',
    ),
    "unknown-runtime-none-declared": (
        framework("f"),
        "error[unknown-runtime]: framework `f` references unknown runtime `py`\n"
        '3:11 "py"\nhint: add it as a table `[[runtimes]]`',
    ),
    "runtime-that-is-a-framework": (
        RUNTIME + framework("f") + framework("g").replace('"py"', '"f"'),
        "error[unknown-runtime]: framework `g` references unknown runtime `f`\n"
        '11:11 "f"\nhint: `f` is the name of a framework',
    ),
    "both": (
        RUNTIME + framework("f") + "frameworks = []\n",
        "error[runtime-and-frameworks]: framework `f` must specify a runtime or framework dependencies, not both\n"
        "9:14 []\nhint: remove `frameworks`",
    ),
    "neither": (
        RUNTIME + '[[frameworks]]\nname = "f"\nrequirements = []\n',
        "error[no-runtime]: framework `f` must specify a runtime or at least one framework dependency\n"
        '5:1 [[frameworks]]\nhint: add `runtime = "NAME"` or `frameworks = ["NAME"]`',
    ),
    "neither-but-empty": (
        RUNTIME + framework("f").replace('runtime = "py"', "frameworks = []"),
        "error[no-runtime]: framework `f` must specify a runtime or at least one framework dependency\n"
        '7:14 []\nhint: add `runtime = "NAME"` or `frameworks = ["NAME"]`',
    ),
    "cycle": (
        RUNTIME + framework("a", "b") + framework("b", "c") + framework("c", "a") + application("x", "a"),
        "error[dependency-cycle]: frameworks need each other: `a` → `b` → `c` → `a`\n"
        "7:15 'b'\nhint: remove one of these references",
    ),
    "self": (
        RUNTIME + framework("a", "a"),
        "error[dependency-cycle]: framework `a` needs itself\n7:15 'a'\nhint: remove one of these references",
    ),
    "twice": (
        RUNTIME + framework("a") + framework("b", "a", "a"),
        "error[duplicate-framework]: framework `b` names the framework `a` twice\n11:20 'a'\nhint: remove one",
    ),
    "inconsistent": (
        RUNTIME
        + RUNTIME.replace('"py"', '"other"')
        + framework("a")
        + framework("b").replace('"py"', '"other"')
        + application("x", "a", "b"),
        "error[inconsistent-runtimes]: the frameworks of application `x` stand on different runtimes\n"
        "19:20 'b'\nnote: `a` requires runtime `py`\nnote: `b` requires runtime `other`\n"
        "hint: all frameworks of a layer must stand on one runtime",
    ),
    "linearization": (
        RUNTIME
        + framework("a")
        + framework("b")
        + framework("x", "a", "b")
        + framework("y", "b", "a")
        + application("z", "x", "y"),
        "error[linearization-failed]: no order of the frameworks of application `z` suits all of them\n"
        "23:14 ['x', 'y']\nnote: framework `x` wants the order `a`, `b`\n"
        "note: framework `y` wants the order `b`, `a`\n"
        "hint: name the frameworks in one order everywhere: the first one is found first",
    ),
    "unknown-platform": (
        RUNTIME + 'platforms = ["linux_x86_64", "linux_amd64"]\n',
        "error[unknown-platform]: runtime `py` specifies an invalid target platform `linux_amd64`\n"
        '5:30 "linux_amd64"\nhint: did you mean `win_amd64`?',
    ),
    "unsupported-platform": (
        RUNTIME + 'platforms = ["linux_x86_64"]\n' + framework("a") + 'platforms = ["linux_x86_64", "win_amd64"]\n',
        "error[unsupported-platform]: framework `a` specifies the target platform `win_amd64`, "
        "which lower layers do not support\n"
        '10:30 "win_amd64"\nnote: runtime `py` does not have it',
    ),
    "bad-requirement": (
        RUNTIME.replace("[]", '["numpy >> 2"]'),
        "error[bad-requirement]: runtime `py` uses invalid requirement syntax: "
        "expected semicolon (after name with no version specifier) or end\n"
        "4:24 >\n"
        "hint: write it as PEP 508 says, such as `numpy>=2` or `requests[socks]; python_version < '3.13'`",
    ),
    "bad-linux-target": (
        RUNTIME + 'linux_target = "musl@1.2"\n',
        'error[bad-target]: runtime `py`: Linux libc variant must be one of `glibc`, not `musl`\n5:16 "musl@1.2"',
    ),
    "bad-macosx-target": (
        RUNTIME + 'macosx_target = "x"\n',
        'error[bad-target]: runtime `py`: macOS target must be of the form `MAJOR` or `MAJOR.MINOR`, not `x`\n5:17 "x"',
    ),
    "unknown-index": (
        RUNTIME + 'priority_indexes = ["cpu"]\n',
        "error[unknown-index]: runtime `py` references an unknown package index `cpu`\n"
        '5:21 "cpu"\nhint: add it with its name and url as an entry of `[[tool.uv.index]]`',
    ),
    "unknown-strata-field": (
        "[tool.strata]\nconflict = 'warn'\n",
        "error[unknown-field]: `tool.strata` has no field `conflict`\n2:1 conflict\nhint: did you mean `conflicts`?",
    ),
    "bad-choice": (
        "[tool.strata]\ndynlib = 'preloaded'\n",
        "error[bad-value]: `dynlib` of `tool.strata` must be `preload` or `launcher`, not `preloaded`\n"
        "2:10 'preloaded'\nhint: did you mean `preload`?",
    ),
    "bad-provider": (
        RUNTIME + "[tool.strata.runtimes.py]\nprovider = ['local', 'pyenv']\n",
        "error[bad-value]: `provider` of `runtimes.py` must be an array of `pbs`, `archive`, `local` or `conda`, "
        "but element 2 is `pyenv`\n6:22 'pyenv'",
    ),
    "strata-unknown-runtime": (
        RUNTIME + "[tool.strata.runtimes.pi]\n",
        "error[unknown-runtime]: `tool.strata.runtimes` names an unknown runtime `pi`\n"
        "5:1 [tool.strata.runtimes.pi]\nhint: runtimes are `py`",
    ),
    "archive-without-url": (
        RUNTIME + "[tool.strata.runtimes.py]\nprovider = 'archive'\nurl = 'https://example.org/x'\n",
        "error[missing-field]: the provider `archive` of runtime `py` needs `sha256`\n5:1 [tool.strata.runtimes.py]",
    ),
    "bad-sha256": (
        RUNTIME + "[tool.strata.runtimes.py]\nsha256 = { linux_x86_64 = 'AB' }\n",
        "error[bad-sha256]: a SHA-256 is 64 lower-case hexadecimal digits\n6:27 'AB'",
    ),
    "bad-accept": (
        RUNTIME + "[tool.strata.runtimes.py]\nprovider = 'local'\naccept = '3.11+'\n",
        "error[bad-specifier]: `accept` of runtime `py` is not a version specifier\n"
        "7:10 '3.11+'\nhint: write it as `\">=3.11,<3.15\"`",
    ),
    "bad-level": (
        "[tool.strata.archive]\nformat = 'zip'\nlevel = 19\n",
        "error[bad-level]: the archive format `zip` has no level 19\n3:9 19\nhint: levels are 0 to 9",
    ),
    "tool-is-no-table": ("tool = 3\n", "error[wrong-type]: `tool` must be a table, not an integer\n1:8 3"),
}


def short(rendered):
    """Fold the lines of the place into `LINE:COLUMN UNDERLINED`."""
    out, lines = [], rendered.rstrip("\n").split("\n")
    for index, line in enumerate(lines):
        if line.lstrip().startswith("-->"):
            position = line.split("venvstacks.toml:")[1]
            source, carets = lines[index + 2], lines[index + 3]
            start = carets.index("^")
            out.append(f"{position} {source[start : carets.rindex('^') + 1]}")
        elif line.startswith(("error", "note", "hint")):
            out.append(line)
    return "\n".join(out)


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD.keys())
def test_a_bad_stack_file_gets_one_clear_diagnostic(text, expected):
    assert short(problems(text)) == expected


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("", "the name of a runtime is empty"),
        (".", "the name of runtime `.` is a folder of its own"),
        ("..", "the name of runtime `..` is a folder of its own"),
        ("x" * 201, f"the name of runtime `{'x' * 40}…` is longer than 200 bytes"),
        ("a/b", "the name of runtime `a/b` contains `/`"),
        ("a\\\\b", "the name of runtime `a\\b` contains `\\`"),
        ("a\\u0000b", "the name of runtime `a\\x00b` contains a control character"),
        ("a\\u001bb", "the name of runtime `a\\x1bb` contains a control character"),
    ],
)
def test_names_that_are_no_folder_are_refused(name, wrong):
    said = problems(RUNTIME.replace('"py"', f'"{name}"'))
    assert said.startswith(f"error[bad-name]: {wrong}\n  --> venvstacks.toml:2:8\n")


@pytest.mark.parametrize(
    "requirement",
    [
        "pip @ https://user:secret@example.org/pip-1.0-py3-none-any.whl",
        "pip @ https://user:sec/ret@example.org/pip-1.0-py3-none-any.whl",
        "pip @ file:///srv/pep-1.0-py3-none-any.whl",
        "pip @ file:srv/pip-1.0-py3-none-any.whl",
        "pip @ https://example.org/pip-1.0.tar.gz",
        "pip @ git+https://example.org/pip.git@v1",
        "pip @ file:///srv/pip.whl",
        "./lib",
        "../lib",
        "/srv/lib",
        "C:\\\\wheels\\\\x.whl",
        "lib/x-1-py3-none-any.whl",
        "x-1.tar.gz",
        "x-1-py3-none-any.whl",
        "-e .",
        "-r requirements.txt",
        "git+https://example.org/x.git",
        "https://user:secret@example.org/x.whl",
        ".",
    ],
)
def test_only_wheels_are_required(requirement):
    said = problems(RUNTIME.replace("[]", f'["{requirement}"]'))
    assert said.startswith("error[url-requirement]: runtime `py` ")
    assert "a layer is made of wheels" in said
    assert "secret" not in said
    assert "sec/ret" not in said


def test_the_url_of_one_wheel_is_a_requirement_and_that_of_a_repository_is_shown():
    url = "file:///srv/wheels/my%20pip/Pip-1.0-1-py3-none-any.whl#sha256=00"
    stack = load(RUNTIME.replace("[]", f"[\"pip @ {url} ; sys_platform == 'linux'\"]"))
    assert stack.layers[0].spec.requirements == (f"pip @ {url} ; sys_platform == 'linux'",)
    said = problems(RUNTIME.replace("[]", '["pip @ git+https://example.org/pip@4017309"]'))
    assert "git+https://example.org/pip@4017309" in said


INDEXES = """\
[[tool.uv.index]]
name = "a"
url = "https://example.org/a"
[[tool.uv.index]]
name = "b"
url = "https://example.org/b"
"""


def indexes(**taken):
    return "package_indexes = { " + ", ".join(f'{name} = "{index}"' for name, index in taken.items()) + " }\n"


def test_conflicts_of_inherited_indexes_name_both_layers_and_can_be_accepted():
    text = (
        INDEXES
        + RUNTIME
        + framework("x")
        + indexes(numpy="a")
        + framework("y")
        + indexes(NumPy="b")
        + application("z", "x", "y")
    )
    assert (
        problems(text)
        == """\
error[index-conflict]: application `z` has inconsistent package index override(s) for `numpy`
   --> venvstacks.toml:21:1
    |
 21 | [[applications]]
    | ^^^^^^^^^^^^^^^^
note: framework `x` takes it from `a`
note: framework `y` takes it from `b`
hint: specify `index_overrides = { b = "a" }` to accept
"""
    )
    accepted = load(text + 'index_overrides = { b = "a" }\n')
    assert accepted.layer("app-z").package_indexes == {"numpy": "a"}
    assert "takes it from `b`" in problems(text + 'index_overrides = { a = "b" }\n')


def test_each_layer_accepts_conflicts_for_itself_alone():
    lower = RUNTIME + framework("x") + indexes(numpy="a") + framework("y", "x") + indexes(numpy="b")
    lower += 'index_overrides = { a = "b" }\n'
    assert load(INDEXES + lower).layer("framework-y").package_indexes == {"numpy": "b"}
    said = problems(INDEXES + lower + application("z", "y"))
    assert "application `z` has inconsistent package index override(s) for `numpy`" in said
    accepted = load(INDEXES + lower + application("z", "y") + 'index_overrides = { a = "b" }\n')
    assert accepted.layer("app-z").package_indexes == {"numpy": "b"}


def test_what_frameworks_inherited_from_the_runtime_is_theirs():
    lower = RUNTIME + indexes(numpy="a") + framework("x") + indexes(numpy="b") + 'index_overrides = { a = "b" }\n'
    lower += framework("y")
    stack = load(INDEXES + lower + application("z", "y", "x") + 'index_overrides = { b = "a" }\n')
    assert stack.layer("app-z").package_indexes == {"numpy": "a"}
    # Its own choice answers to the one that won below, which is all that it can name.
    third = '[[tool.uv.index]]\nname = "c"\nurl = "https://example.org/c"\n'
    text = INDEXES + third + lower + application("z", "x", "y")
    stack = load(text + indexes(numpy="c") + 'index_overrides = { a = "b", b = "c" }\n')
    assert stack.layer("app-z").package_indexes == {"numpy": "c"}


def test_an_override_of_an_index_that_is_not_there_is_told():
    stack = load(INDEXES + RUNTIME + 'index_overrides = { a = "bb" }\n')
    assert [each.message for each in stack.warnings] == [
        "`index_overrides` of runtime `py` names an unknown package index `bb`"
    ]


def test_a_name_that_is_a_version_of_another_layer_is_told():
    stack = load(RUNTIME + "versioned = true\n" + RUNTIME.replace('"py"', '"py@2"') + RUNTIME.replace('"py"', '"py@x"'))
    (warning,) = stack.warnings
    assert (warning.id, warning.place.line) == ("shared-target", 7)
    assert warning.message == "runtime `py` is deployed as `py@2` when its lock has version 2, as runtime `py@2` is"


@pytest.mark.parametrize(
    ("launch", "support", "files", "told"),
    [
        ("app.py", "", ["app.py"], []),
        ("app.pyc", "", ["app.pyc"], []),
        ("my-app.py", "", ["my-app.py"], []),
        ("pack", "", ["pack", "pack/__main__.py"], []),
        ("pack/", "", ["pack", "pack/__main__.py"], []),
        ("gone.py", "", [], []),
        ("pack", "", ["pack", "pack/__init__.py"], ["not-runnable"]),
        ("notes.txt", "", ["notes.txt"], ["not-runnable"]),
        ("a.b.py", "", ["a.b.py"], ["not-runnable"]),
        ("json.py", "", ["json.py"], ["shadowed-module"]),
        ("app.py", "lib/json", ["app.py"], ["shadowed-module"]),
    ],
)
def test_modules_that_python_would_not_run_or_find_are_told(launch, support, files, told):
    text = RUNTIME + application("x").replace("app.py", launch) + f"support_modules = {[support] if support else []}\n"
    stack = load(text, others=dict.fromkeys(files, ""))
    assert [(each.id, each.place.line) for each in stack.warnings] == [(each, 10 if support else 9) for each in told]


def test_a_broken_uv_file_is_reported_with_the_stack_file():
    said = problems(RUNTIME + "versioned = 1\n", others={"venvstacks.uv.toml": "x = \n"})
    assert said.count("error[") == 2
    assert "--> venvstacks.uv.toml:1:5" in said
    assert "--> venvstacks.toml:5:13" in said
