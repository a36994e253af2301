"""Labels of a repository, where its stack files are, and what of a stack is touched by changes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from strata_engine.action import Source, SourceTree
from strata_engine.errors import HostError, SpecError
from strata_engine.events import Outcome
from strata_engine.records import Records
from strata_engine.run_record import ActionReport, RunRecord, append
from strata_rules.repository import git
from strata_rules.repository.changes import files_of, reads, touched_layers
from strata_rules.repository.find import find_all
from strata_rules.repository.labels import Pattern, StackFile, is_query, names_repository, parse, repository_root
from strata_rules.repository.runs import Runs
from strata_rules.repository.which import resolve, stack_file, stack_files
from strata_rules.spec.load import Stack, load_stack


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a repository with stack files in many places."""
    for path in (
        "venvstacks.toml",
        "apps/a/strata.toml",
        "apps/a/inner/venvstacks.toml",
        "apps/both/strata.toml",
        "apps/both/venvstacks.toml",
        "apps/named/other.toml",
        *(
            f"apps/a/{name}/venvstacks.toml"
            for name in (".hidden", "_build", "_artifacts", "_export", "ignored", ".strata")
        ),
        "apps-too/strata.toml",
        "elsewhere/.git/HEAD",
        "elsewhere/venvstacks.toml",
        "submodule/venvstacks.toml",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / "submodule" / ".git").write_text("gitdir: ../.git/modules/submodule\n")
    (tmp_path / ".gitignore").write_text("ignored/\n")
    (tmp_path / "link").symlink_to("apps")
    return tmp_path


# -- labels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("//...", ("", "", True, "...")),
        ("//:app-x", ("", "", False, "app-x")),
        ("//a/b:app-x/archive[win_amd64,zip]", ("a/b", "", False, "app-x/archive[win_amd64,zip]")),
        ("//a/b", ("a/b", "", False, "...")),
        ("//a/b/...", ("a/b", "", True, "...")),
        ("//a/b/...:*/lock", ("a/b", "", True, "*/lock")),
        ("//a/b:*", ("a/b", "", False, "*")),
        ("//a/x.toml:app", ("a", "x.toml", False, "app")),
        ("//x.toml:fetch/a:b", ("", "x.toml", False, "fetch/a:b")),
    ],
)
def test_labels_are_taken_apart(text: str, expected: tuple[str, str, bool, str]) -> None:
    assert parse(text) == Pattern(text, *expected)


@pytest.mark.parametrize(
    "text", ["app", "/a:b", "//a:", "//a//b:c", "///a:c", "//../a:c", "//a/./b", "//a/.../b", "//a/"]
)
def test_what_is_no_label_is_refused(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert caught.value.diagnostics[0].id == "bad-label"


def test_queries_and_labels_of_repositories_are_told_from_others() -> None:
    assert [is_query(text) for text in ("app-x", "*/link", "app-x/archive[win_amd64,zip]", "wheel/a-1+b.whl")] == [
        False
    ] * 4
    assert all(is_query(text) for text in ("deps(x)", "a|b", "a & b", "app-* - app-x"))
    assert all(names_repository([text]) for text in ("//...", "deps(//a:b)", "x |//a:b", 'kind(A, "//a:b")'))
    assert not names_repository(["input(https://x)", "a//b", "app"])


def test_a_stack_file_has_a_name_in_labels_only_where_it_needs_one(root: Path) -> None:
    texts = ("//:x", "//apps/a:x", "//apps/a/strata.toml:x", "//apps/both/strata.toml:x", "//apps/named/other.toml:x")
    assert [stack_file(root, parse(text)).prefix for text in texts] == [
        "//:", "//apps/a:", "//apps/a:", "//apps/both/strata.toml:", "//apps/named/other.toml:",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "id", "hint"),
    [
        ("//apps/both:x", "two-stack-files", "name one, as in `//apps/both/venvstacks.toml:LABEL`"),
        ("//aps/a:x", "unknown-stack", "did you mean `//apps/a`?"),
        ("//apps/named:x", "unknown-stack", None),
        ("//apps/a/nothing.toml:x", "unknown-stack", None),
        ("//qqq:x", "unknown-stack", "stack files are `//:`, `//apps/a:`, `//apps/a/inner:`, `//apps-too:`"),
    ],
)
def test_what_no_stack_file_is_for_is_told(root: Path, text: str, id: str, hint: str | None) -> None:
    with pytest.raises(SpecError) as caught:
        stack_file(root, parse(text))
    [told] = caught.value.diagnostics
    assert told.id == id
    assert hint is None or told.hint == hint


def test_one_label_leads_to_one_stack(root: Path) -> None:
    inside = root / "apps" / "a"
    assert resolve("//apps/a:app-x", inside) == (inside / "strata.toml", "app-x")
    assert resolve("//:...", inside) == (root / "venvstacks.toml", None)
    with pytest.raises(SpecError, match="several stack files"):
        resolve("//...:app-x", inside)


# -- stack files -------------------------------------------------------------------------------------------------------


def test_stack_files_are_found_where_people_keep_them(root: Path) -> None:
    found = find_all(root)
    assert [file.shown for file in found.files] == [
        "venvstacks.toml", "apps/a/strata.toml", "apps/a/inner/venvstacks.toml", "apps-too/strata.toml",
    ]  # fmt: skip
    assert [problem.id for problem in found.problems] == ["two-stack-files"]
    assert [file.package for file in find_all(root, "apps/a").files] == ["//apps/a", "//apps/a/inner"]


def test_patterns_give_each_stack_file_once(root: Path) -> None:
    found = stack_files(root, [parse("//apps/a/..."), parse("//apps/a:x"), parse("//apps/named/other.toml")])
    assert [file.prefix for file in found.files] == ["//apps/a/inner:", "//apps/a:", "//apps/named/other.toml:"]
    with pytest.raises(SpecError, match=r"no stack file for `//apps/named/\.\.\.`"):
        stack_files(root, [parse("//apps/named/...")])


def test_the_nearest_repository_is_meant(root: Path) -> None:
    assert repository_root(root / "apps" / "a") == root
    assert repository_root(root / "submodule") == root / "submodule"
    assert StackFile(root, "", "venvstacks.toml").path == root / "venvstacks.toml"


# -- changes -----------------------------------------------------------------------------------------------------------

STACK = """\
[[runtimes]]
name = "py"
python_implementation = "cpython@3.12.9"
requirements = []
[[runtimes]]
name = "old"
python_implementation = "cpython@3.11.7"
requirements = []
[[frameworks]]
name = "low"
runtime = "py"
requirements = ["a"]
[[applications]]
name = "one"
launch_module = "one.py"
frameworks = ["low"]
requirements = []
[tool.uv]
no-index = true
[tool.strata.runtimes."py"]
provider = "local"
[tool.strata]
dynlib = "launcher"
"""
EVERYTHING = {"py", "old", "framework-low", "app-one"}


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    (tmp_path / "venvstacks.toml").write_text(STACK)
    (tmp_path / "one.py").touch()
    return load_stack(tmp_path / "venvstacks.toml", Path.read_bytes)


@pytest.mark.parametrize(
    ("old", "new", "layers"),
    [
        ("", "", set()),
        ('requirements = ["a"]', 'requirements = ["b"]', {"framework-low"}),
        ('name = "one"', 'name = "once"', {"app-one"}),
        ('"cpython@3.11.7"', '"cpython@3.11.6"', {"old"}),
        ("[tool.uv]\n", "\n # said otherwise\n[tool.uv]\n", set()),
        ("no-index = true", "no-index = false", EVERYTHING),
        ('provider = "local"', 'provider = "pbs"', {"py", "framework-low", "app-one"}),
        ('dynlib = "launcher"', "", EVERYTHING),
        ("[[", "[", EVERYTHING),
    ],
)
def test_tables_that_differ_touch_their_layers(stack: Stack, old: str, new: str, layers: set[str]) -> None:
    assert touched_layers(stack, STACK.replace(old, new).encode()) == layers


def test_a_stack_file_that_is_new_touches_all(stack: Stack) -> None:
    assert touched_layers(stack, None) == EVERYTHING


def test_sources_are_what_is_read_of_them(tmp_path: Path) -> None:
    for name in ("tree/in/a.py", "tree/in/b.txt", "tree/c.py", "outside/d.py", "file"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "tree" / "link").symlink_to("../outside")
    (tmp_path / "other").symlink_to("file")

    def changes(source: Source | SourceTree, path: str) -> bool:
        return reads(source, tmp_path, [tmp_path / path])

    python = SourceTree("tree", lambda path, is_folder: is_folder or path.endswith(".py"))
    assert changes(python, "tree/in/a.py")
    assert changes(python, "tree/in/gone.py")
    assert not changes(python, "tree/in/b.txt")
    assert not changes(python, "outside/d.py")
    assert changes(SourceTree("tree", follow=True), "outside/d.py")
    assert not changes(SourceTree("tree", lambda path, is_folder: not is_folder), "tree/in/a.py")
    assert changes(Source("file"), "file")
    assert changes(Source("other"), "file")
    assert not changes(Source("file"), "other")
    found = [path.relative_to(tmp_path).as_posix() for path in files_of(python, tmp_path)]
    assert found == ["tree", "tree/c.py", "tree/in/a.py"]


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def run_git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=Tests", "-c", "user.email=tests@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@needs_git
def test_git_says_what_differs_from_a_commit(tmp_path: Path) -> None:
    run_git(tmp_path, "init", "--quiet")
    for name in ("changed", "moved", "gone", "kept", "ä b\n.py", ".gitignore"):
        (tmp_path / name).write_text("ignored\n")
    run_git(tmp_path, "add", "--all")
    run_git(tmp_path, "commit", "--quiet", "--message", "state")
    since = git.commit(tmp_path, "HEAD")
    assert git.changed(since) == frozenset()
    (tmp_path / "changed").write_text("new")
    (tmp_path / "moved").rename(tmp_path / "renamed")
    run_git(tmp_path, "add", "--all")
    (tmp_path / "gone").unlink()
    (tmp_path / "ä b\n.py").write_text("new")
    (tmp_path / "untracked").touch()
    (tmp_path / "ignored").touch()
    names = {path.name for path in git.changed(since)}
    assert names == {"changed", "moved", "renamed", "gone", "ä b\n.py", "untracked"}
    assert git.content(since, tmp_path / "changed") == b"ignored\n"
    assert git.content(since, tmp_path / "untracked") is None
    with pytest.raises(SpecError, match="git knows no commit `--help` here"):
        git.commit(tmp_path, "--help")


def test_without_git_it_is_said_who_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError) as caught:
        git.commit(tmp_path, "HEAD")
    assert caught.value.diagnostics[0].id == "no-git"


# -- recorded builds ---------------------------------------------------------------------------------------------------


def record(folder: Path, run: str, **outcomes: Outcome) -> None:
    actions = tuple(
        ActionReport(label=label, mnemonic="Link", key="a/1", outcome=outcome, seconds=1.0)
        for label, outcome in outcomes.items()
    )
    made = RunRecord(run=run, started="", seconds=1.0, command=(), exit_code=0, counts={}, actions=actions)
    append(folder / "runs.jsonl", made)


def test_builds_of_all_and_of_one_are_in_the_order_of_time(tmp_path: Path) -> None:
    for name in ("whole", "a"):
        (tmp_path / name).mkdir()
    record(tmp_path / "whole", "20260101T000001-aaaa01", ax=Outcome.EXECUTED, bx=Outcome.CACHED)
    record(tmp_path / "a", "20260101T000001-aaaa01", x=Outcome.EXECUTED)
    record(tmp_path / "a", "20260101T000002-aaaa02", x=Outcome.FAILED, gone=Outcome.EXECUTED)
    runs = Runs(
        {
            lambda label: label: Records.read(tmp_path / "whole" / "runs.jsonl"),
            {"x": "ax"}.get: Records.read(tmp_path / "a" / "runs.jsonl"),
        }
    )
    assert runs.state("ran", None) == runs.state("failed", "last") == {"ax"}
    assert runs.state("ran", "last~1") == {"ax"}
    assert runs.state("hit", "aaaa01") == {"bx"}
    assert runs.state("critical", "20260101T000002") == {"ax"}
    for name, told in (("last~2", "unknown-run"), ("zzz", "unknown-run"), ("aaaa", "ambiguous-run")):
        with pytest.raises(SpecError) as caught:
            runs.state("ran", name)
        assert caught.value.diagnostics[0].id == told
    with pytest.raises(SpecError, match="no build has been recorded"):
        Runs({}).state("ran", None)
