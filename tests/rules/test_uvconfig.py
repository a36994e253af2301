import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from strata_engine.errors import SpecError, render
from strata_rules.spec.load import load_stack
from strata_rules.spec.uvconfig import layer_config, without_credentials

FILE = Path("venvstacks.toml")
ROOT = FILE.absolute().parent

RUNTIME = """
[[runtimes]]
name = "py"
python_implementation = "cpython@3.12.9"
requirements = []
"""

UV = """\
no-build-isolation = true
override-dependencies = ["torch==2.6 ; sys_platform == 'never'"]
find-links = ["./wheels", "https://user:secret@example.org/links.html"]
[[index]]
name = "main"
url = "https://user:secret@example.org/simple"
default = true
[[index]]
name = "cpu"
url = "https://example.org/cpu?token=secret"
explicit = true
[[index]]
name = "cuda"
url = "https://example.org/cuda"
explicit = true
[[index]]
url = "https://example.org/unnamed"
authenticate = "always"
[[index]]
name = "local"
url = "../mirror"
format = "flat"
[sources]
Torch_Audio = { index = "cuda" }
"""

INLINE = UV.replace("[[index]]", "[[tool.uv.index]]").replace("[sources]", "[tool.uv.sources]")


def load(text, *, others=None, env=None, root=None):
    file = (root or ROOT) / FILE
    files = {file: text} | {(root or ROOT) / name: body for name, body in (others or {}).items()}
    probed = []

    def probe(path):
        probed.append(path)
        # Of all else these tests only write about folders that are there.
        return path in files or path.suffix != ".toml"

    stack = load_stack(file, lambda path: files[path].encode(), name="venvstacks.toml", probe=probe, env=env or {})
    return stack, [path.name for path in probed if path.suffix == ".toml"]


STACK = (
    "[tool.uv]\n"
    + INLINE
    + RUNTIME
    + 'package_indexes = { torch = "cpu" }\n'
    + '[[frameworks]]\nname = "f"\nruntime = "py"\nrequirements = []\npriority_indexes = ["local", "cpu"]\n'
)


def config(env_name, **options):
    stack, _ = load(STACK)
    return layer_config(stack, stack.layer(env_name), **options)


def test_indexes_are_asked_by_priority_then_as_packages_name_them_then_as_they_are_common():
    assert [index.name for index in config("py").indexes] == ["cpu", "cuda", "main", None, "local"]
    framework = config("framework-f")
    assert [index.name for index in framework.indexes] == ["local", "cpu", "cuda", "main", None]
    assert [index.explicit for index in framework.indexes] == [False, False, True, False, False]
    assert framework.sources == {"torch-audio": "cuda", "torch": "cpu"}


def test_explicit_indexes_that_no_package_names_are_left_out():
    stack, _ = load(STACK.replace('Torch_Audio = { index = "cuda" }', "").replace('{ torch = "cpu" }', "{}"))
    assert [index.name for index in layer_config(stack, stack.layer("py")).indexes] == ["main", None, "local"]


def test_uv_reads_what_was_written_with_paths_that_hold_anywhere():
    table = config("py", local_wheels=[Path("/srv/wheels")], no_index=True).tool_uv()
    assert table["find-links"] == [
        str(ROOT / "wheels"),
        "https://user:secret@example.org/links.html",
        "/srv/wheels",
    ]
    assert table["index"][2] == {"name": "main", "url": "https://user:secret@example.org/simple", "default": True}
    assert table["index"][3] == {"url": "https://example.org/unnamed", "authenticate": "always"}
    assert table["index"][4] == {"name": "local", "url": str(ROOT.parent / "mirror"), "format": "flat"}
    assert table["sources"] == {"torch-audio": {"index": "cuda"}, "torch": {"index": "cpu"}}
    assert (table["no-build"], table["no-index"], table["no-build-isolation"]) == (True, True, True)
    assert table["cache-keys"] == [{"file": "pyproject.toml"}]


def test_the_form_for_keys_has_no_credentials_and_no_paths_of_this_machine(tmp_path):
    def canonical(root):
        stack, _ = load(STACK, root=root)
        found = layer_config(stack, stack.layer("py"), local_wheels=[root / "more"]).canonical()
        return json.dumps(found, sort_keys=True, allow_nan=False)

    here = canonical(tmp_path / "one")
    assert here == canonical(tmp_path / "two")
    assert "secret" not in here
    assert str(tmp_path) not in here
    found = json.loads(here)
    assert found["settings"]["find-links"] == ["wheels", "https://example.org/links.html", "more"]
    assert [index["url"] for index in found["index"]] == [
        "https://example.org/cpu",
        "https://example.org/cuda",
        "https://example.org/simple",
        "https://example.org/unnamed",
        "../mirror",
    ]


def test_local_folders_are_known_since_their_wheels_belong_to_the_request():
    folders = config("py", local_wheels=[Path("/srv/wheels")]).folders()
    assert folders == (ROOT / "wheels", Path("/srv/wheels"), ROOT / "../mirror")
    stack, _ = load('[tool.uv]\nfind-links = ["file:///srv/a%20b", "~/w"]' + RUNTIME)
    assert layer_config(stack, stack.layer("py")).folders() == (Path("/srv/a b"), Path("~/w").expanduser())


def test_the_uv_file_counts_where_there_is_no_table_and_its_absence_is_noticed():
    from_file, probed = load(RUNTIME, others={"venvstacks.uv.toml": UV})
    inline, unprobed = load("[tool.uv]\n" + INLINE + RUNTIME, others={"venvstacks.uv.toml": "no-such = true"})
    for field in ("settings", "indexes", "sources"):
        assert getattr(from_file.uv, field) == getattr(inline.uv, field)
    assert (probed, unprobed) == (["venvstacks.uv.toml"], [])
    absent, probed = load(RUNTIME)
    assert absent.uv.indexes == ()
    assert probed == ["venvstacks.uv.toml"]


@pytest.mark.parametrize(
    ("written", "variable", "newer", "time"),
    [
        ('"2025-03-01T12:00:00Z"', None, "2025-03-01T12:00:00Z", datetime(2025, 3, 1, 12, tzinfo=UTC)),
        ("2025-03-01T12:00:00Z", None, "2025-03-01T12:00:00+00:00", datetime(2025, 3, 1, 12, tzinfo=UTC)),
        ("2025-03-01", None, "2025-03-01", datetime(2025, 3, 1)),
        ('"2025-03-01"', "2024-01-02T00:00:00Z", "2024-01-02T00:00:00Z", datetime(2024, 1, 2, tzinfo=UTC)),
        ('"1 week"', None, "1 week", None),
        ('"2025-03-01"', "", "2025-03-01", datetime(2025, 3, 1)),
    ],
)
def test_exclude_newer_is_the_variable_or_the_setting(written, variable, newer, time):
    env = {} if variable is None else {"UV_EXCLUDE_NEWER": variable}
    stack, _ = load(f"[tool.uv]\nexclude-newer = {written}\n" + RUNTIME, env=env)
    assert (stack.uv.exclude_newer, stack.uv.lock_time) == (newer, time)
    assert layer_config(stack, stack.layer("py")).canonical()["settings"]["exclude-newer"] == newer


@pytest.mark.parametrize("span", ["1 week", "3 days 12h", "P3D", "-P1Y", "30days", "2 hours ago"])
def test_exclude_newer_may_be_a_span(span):
    stack, _ = load(f'[tool.uv]\nexclude-newer = "{span}"\n' + RUNTIME)
    assert (stack.uv.exclude_newer, stack.uv.lock_time) == (span, None)


def test_the_variable_counts_without_any_settings():
    stack, _ = load(RUNTIME, env={"UV_EXCLUDE_NEWER": "2024-01-02"})
    assert stack.uv.exclude_newer == "2024-01-02"
    for text in ("", "[tool.uv]\n"):
        with pytest.raises(SpecError, match="the variable `UV_EXCLUDE_NEWER` is no time: `soon`"):
            load(text + RUNTIME, env={"UV_EXCLUDE_NEWER": "soon"})


def test_paths_that_start_where_venvstacks_resolves_are_found_and_told(tmp_path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "stack.toml").write_text(
        '[tool.uv]\nfind-links = ["../../wheels", "wheels"]\nindex = [{ url = "../../wheels" }]\n' + RUNTIME
    )
    stack = load_stack(tmp_path / "stack.toml", Path.read_bytes, env={})
    config = layer_config(stack, stack.layer("py"))
    assert config.folders() == (tmp_path / "wheels",)
    assert config.canonical()["settings"]["find-links"] == ["wheels", "wheels"]
    assert [(each.id, each.place.line, each.hint) for each in stack.warnings] == [
        ("moved-folder", 2, "write `wheels`"),
        ("moved-folder", 3, "write `wheels`"),
    ]


def test_what_else_a_source_says_has_no_effect():
    index = "[tool.uv]\nindex = [{name = 'a', url = 'https://example.org'}]\n[tool.uv.sources]\n"
    stack, _ = load(index + "x = { index = 'a', marker = \"sys_platform == 'linux'\" }\n" + RUNTIME)
    assert stack.uv.sources == {"x": "a"}
    assert [(each.id, each.place[1:3]) for each in stack.warnings] == [("no-effect", (4, 20))]


@pytest.mark.parametrize(
    ("url", "stripped"),
    [
        ("https://user:pass@example.org/simple", "https://example.org/simple"),
        ("https://user:p@ss@example.org:8080/a/b", "https://example.org:8080/a/b"),
        ("https://token@example.org/simple/", "https://example.org/simple/"),
        ("https://example.org/x?access_token=1&page=2&api-key=3", "https://example.org/x?page=2"),
        ("https://example.org/x?keyring=1", "https://example.org/x?keyring=1"),
        ("https://[broken@host/x", "https://host/x"),
        ("wheels/a@b", "wheels/a@b"),
    ],
)
def test_credentials_are_stripped(url, stripped):
    assert without_credentials(url) == stripped


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("[tool]\nuv = 3\n", "`tool.uv` must be a table, not an integer", (2, 6)),
        ("[tool.uv]\nindex = 3\n", "`index` of `tool.uv` must be an array of tables", (2, 9)),
        ("[tool.uv]\nfind-links = 'x'\n", "`find-links` of `tool.uv` must be an array of strings", (2, 14)),
        ("[[tool.uv.index]]\nname = 'x'\n", "a package index has no `url`", (1, 1)),
        (
            "[tool.uv]\nexclude-newer = 'soon'\n",
            "`exclude-newer` of `tool.uv` must be a time, not `soon`",
            (2, 17),
        ),
        ("[tool.uv]\nexclude-newer = ''\n", "`exclude-newer` of `tool.uv` must be a time, not ``", (2, 17)),
        ("[tool.uv]\nexclude-newer = 3\n", "`exclude-newer` of `tool.uv` must be a time, not an integer", (2, 17)),
        (
            "[[tool.uv.index]]\nurl = 'x'\nname = 3\n",
            "`name` of a package index must be a string, not an integer",
            (3, 8),
        ),
        (
            "[[tool.uv.index]]\nurl = 'x'\nname = 'n'\n[[tool.uv.index]]\nurl = 'y'\nname = 'n'\n",
            "there are two package indexes called `n`",
            (6, 8),
        ),
        ("[tool.uv]\nsources = 3\n", "`sources` of `tool.uv` must be a table", (2, 11)),
        ("[tool.uv.sources]\nx = { git = 'https://y' }\n", "the source of `x` must be a package index", (2, 5)),
        ("[tool.uv.sources]\nx = [{ index = 'a' }]\n", "the source of `x` must be a package index", (2, 5)),
        (
            "[tool.uv]\nindex = [{name = 'a', url = 'u'}]\n[tool.uv.sources]\nx = { index = 'b' }\n",
            "the source of `x` references an unknown package index `b`",
            (4, 15),
        ),
        (
            "[tool.uv]\nindex = [{name = 'a', url = 'u'}]\n"
            "[tool.uv.sources]\nx-y = { index = 'a' }\nX_y = { index = 'a' }\n",
            "there are multiple sources for `x-y` after name normalization",
            (5, 1),
        ),
        (
            "[tool.uv]\nindex = [{name = 'a', url = 'u'}]" + RUNTIME + "package_indexes = { X = 'a', x = 'a' }\n",
            "runtime `py` specifies multiple sources for `x` after name normalization",
            (7, 30),
        ),
    ],
)
def test_bad_settings_have_a_place(text, message, place):
    with pytest.raises(SpecError) as caught:
        load(text)
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.message, diagnostic.place[1:3]) == (message, place)


@pytest.mark.parametrize(
    ("settings", "message", "place"),
    [
        ('find-links = ["wheels", "gone.toml"]', "there is no folder or page `gone.toml` to take wheels from", (2, 25)),
        ('index = [{ url = "gone.toml" }]', "there is no folder or page `gone.toml` to take wheels from", (2, 18)),
        ('index = [{ url = "https://a:b/c@h" }]', "a URL of `index` has a login that cannot be read", (2, 18)),
        ("constraint-dependencies = 3", "`constraint-dependencies` of `tool.uv` must be an array of strings", (2, 27)),
    ],
)
def test_what_uv_would_say_of_a_file_of_ours_is_said_of_the_stack_file(settings, message, place):
    with pytest.raises(SpecError) as caught:
        load(f"[tool.uv]\n{settings}\n")
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.message, diagnostic.place[1:3]) == (message, place)
    assert "a:b" not in render(diagnostic)


def test_a_diagnostic_shows_no_credentials():
    with pytest.raises(SpecError) as caught:
        load("[tool.uv]\nindex = [{ name = 3, url = 'https://user:secret@example.org' }]\n")
    assert (
        render(caught.value.diagnostics[0])
        == """\
error[wrong-type]: `name` of a package index must be a string, not an integer
  --> venvstacks.toml:2:19
   |
 2 | index = [{ name = 3, url = 'https://***********@example.org' }]
   |                   ^"""
    )
