"""`strata graph query`: each function on a real stack, as BUILD.md documents it, and all stacks of a repository."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from repositories import Repository, write_repository
from space import Ran, Space

from strata_engine.query import FUNCTIONS

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

BUILD_MD = Path(__file__).resolve().parents[2] / "BUILD.md"
ROW = re.compile(r"^\| `(?P<usage>\w+\(.*?\))` \| `(?P<example>[^`]+)` \| (?P<gives>.*) \|$", re.MULTILINE)
EXAMPLES = [match.groups() for match in ROW.finditer(BUILD_MD.read_text())]


@pytest.fixture(scope="module")
def edited(template: Space, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Give the template's stack as BUILD.md says: committed, built, `hello.py` edited and built, `names.py` edited."""
    folder = tmp_path_factory.mktemp("queries")
    copy = template.copy(folder / "stack", folder / "store")
    space = Repository(copy.root, copy.store)
    space.write(".gitignore", "_build/\n.strata/\n")
    space.git("init", "--quiet")
    space.commit()
    space.ok("build")
    space.write("hello.py", "import alpha\nprint('hello again')\n")
    space.ok("build")
    space.write("world/names.py", "NAME = 'wider'\n")
    return space


def ask(space: Space, query: str, *more: str) -> list[str]:
    return space.ok("graph", "query", query, *more).stdout.splitlines()


def test_every_function_has_an_example() -> None:
    usages = [usage for usage, _, _ in EXAMPLES]
    assert usages == [function.usage for function in FUNCTIONS.values()]


@pytest.mark.parametrize(("usage", "example", "gives"), EXAMPLES, ids=[usage for usage, _, _ in EXAMPLES])
def test_the_examples_give_what_is_said_of_them(edited: Repository, usage: str, example: str, gives: str) -> None:
    assert usage.partition("(")[0] in example
    expected = re.findall(r"`([^`]+)`", gives)
    assert ask(edited, example) == sorted(expected)


# -- one stack ---------------------------------------------------------------------------------------------------------


def test_the_document(edited: Repository) -> None:
    ran = edited.ok("graph", "query", "fetch/zeta* | app-world/lock | app-world", "--json")
    host = ran.json["labels"][0]["platform"]
    assert re.fullmatch(r"(linux|macosx)_\w+", host)
    assert ran.json == {
        "schema": "strata.query",
        "version": 1,
        "query": "fetch/zeta* | app-world/lock | app-world",
        "labels": [
            document("app-world/link", "Link", "venvstacks.toml", "app-world", host),
            document("app-world/lock", "Lock", "venvstacks.toml", "app-world", None),
            document("fetch/zeta-1.0-py3-none-any.whl", "Fetch", "venvstacks.toml", None, None),
        ],
    }
    assert edited.ok("graph", "query", "failed()", "--json").json["labels"] == []


def document(
    label: str, mnemonic: str, stack: str | None, layer: str | None, platform: str | None
) -> dict[str, object]:
    return {"label": label, "mnemonic": mnemonic, "stack": stack, "layer": layer, "platform": platform}


def test_pictures_of_what_is_found(edited: Repository) -> None:
    tree = edited.ok("graph", "query", "kind(Link) & app-*", "--format", "tree").stdout
    assert "app-world" in tree
    assert "(would run)" in tree
    drawn = edited.ok("graph", "show", "app-hello", "--json").json
    assert {"from": "app-hello/install", "to": "app-hello/link"} in drawn["edges"]
    assert edited.ok("graph", "show", "//...", "--json").json["schema"] == "strata.graph"
    assert edited.ok("graph", "query", "deps(app-world, 1)", "--format", "dot").stdout.startswith("digraph")
    assert "-->" in edited.ok("graph", "query", "deps(app-world, 1)", "--format", "mermaid").stdout


def test_nothing_is_run_or_changed_to_answer(edited: Repository) -> None:
    def state() -> dict[Path, int]:
        kept = ("history", "graph", "runs.jsonl", "sources")
        return {path: path.stat().st_mtime_ns for name in kept if (path := edited.root / ".strata" / name).exists()}

    before = state()
    assert len(ask(edited, "*")) > 24
    assert ask(edited, "changed(HEAD)", str(edited.root)) == ask(edited, "changed(HEAD)")
    assert state() == before


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("app-wrold", ["error[unknown-label]", "--> query:1:1", "did you mean `app-world`?"]),
        ("kind(Link) & sole()", ["error[bad-query]", "--> query:1:14", "there is no function `sole`"]),
        ("attr(layr, x)", ["--> query:1:6", "no attribute `layr`", "did you mean `layer`?"]),
        ("slow(soon)", ["--> query:1:1", "`soon` is no time"]),
        ("ran(zzz)", ["error[unknown-run]"]),
        ("changed(no-such-commit)", ["error[unknown-commit]", "--> query:1:1"]),
    ],
)
def test_what_is_wrong_is_shown_in_the_query(edited: Repository, query: str, said: list[str]) -> None:
    ran = edited.strata("graph", "query", query)
    assert ran.code == 2
    assert all(each in ran.stderr for each in said), ran.stderr


def test_without_git_changes_cannot_be_told(edited: Repository, tmp_path: Path) -> None:
    ran = edited.strata("graph", "query", "changed(HEAD)", env={"PATH": str(tmp_path)})
    assert ran.code == 3
    assert "error[no-git]" in ran.stderr


def test_what_locks_select_is_unknown_before_they_are_made(template: Space, tmp_path: Path) -> None:
    space = template.copy(tmp_path / "stack", tmp_path / "store")
    space.replace("venvstacks.toml", '"alpha", "beta"', '"alpha"')
    ran = space.ok("graph", "query", "kind(Fetch) | kind(Install)")
    assert "framework-low/install" in ran.stdout.splitlines()
    assert not [line for line in ran.stdout.splitlines() if "beta" in line]
    assert re.fullmatch(
        r"the wheels of `.*` and \d+ more are unknown until `strata lock` has made their locks\n", ran.stderr
    )
    assert not (space.root / "_build").exists()


# -- a repository ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(template: Space, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Give a repository of three stacks, all locked and committed. Each test puts back what it changes."""
    folder = tmp_path_factory.mktemp("repository")
    made = write_repository(template, folder / "root", folder / "store")
    made.ok("build", "//...:*/install")
    made.commit()
    return made


def publish(repository: Repository, commit: str = "HEAD") -> set[str]:
    """Ask as CI services do."""
    ran: Ran = repository.ok("graph", "query", f"rdeps(//..., changed({commit})) & kind(Archive)", "--json")
    return {each["label"].removesuffix("/archive[tar.gz]") for each in ran.json["labels"]}


def test_changes_say_what_to_publish(repository: Repository) -> None:
    assert publish(repository) == set()
    changes = {
        "apps/one/hello.py": {"//apps/one:app-hello"},
        "apps/one/world/new.py": {"//apps/one:app-world"},
        "apps/two/wheels-are-elsewhere.txt": set(),
        "ignored/two.py": set(),
    }
    for path, expected in changes.items():
        target = repository.root / path
        before = target.read_bytes() if target.exists() else None
        repository.write(path, "changed = True\n")
        assert publish(repository) == expected, path
        target.unlink() if before is None else target.write_bytes(before)
    repository.stack("apps/one").replace("hello.py", "print", "# said\nprint")
    repository.commit()
    assert publish(repository) == set()
    assert publish(repository, "HEAD~1") == {"//apps/one:app-hello"}


def test_a_changed_stack_file_touches_the_layers_that_differ(repository: Repository) -> None:
    one = repository.stack("apps/one")
    one.replace("venvstacks.toml", 'launch_module = "world"', 'launch_module = "world"\ndynlib_exclude = ["*"]')
    assert set(ask(repository, "changed(HEAD) & //... & kind(Lo?k)")) == {"//apps/one:app-world/lock"}
    repository.git("checkout", "--", "apps/one/venvstacks.toml")
    two = repository.stack("apps/two")
    two.replace("venvstacks.toml", "level = 1", "level = 2")
    assert publish(repository) == {"//apps/two:app-two", "//apps/two:python"}
    repository.git("checkout", "--", "apps/two/venvstacks.toml")


def test_a_changed_lock_touches_what_stands_on_it(repository: Repository) -> None:
    two = repository.stack("apps/two")
    lock = two.root / "requirements/app-two/pylock.app-two.meta.json"
    before = lock.read_bytes()
    lock.write_bytes(before + b"\n")
    assert ask(repository, "changed(HEAD) & //...") == ["//apps/two:app-two/lock"]
    lock.write_bytes(before)


def test_shared_wheels_belong_to_all_that_have_them(repository: Repository) -> None:
    assert set(ask(repository, "rdeps(//..., fetch/zeta*) & kind(Install)")) == {
        "//apps/one:app-world/install", "//apps/two:app-two/install",
    }  # fmt: skip
    found = repository.ok("graph", "query", "//... & fetch/zeta* | //libs/three:fetch/eta*", "--json").json
    assert {each["label"]: each["stack"] for each in found["labels"]} == {
        "fetch/eta-1.0-py3-none-any.whl": "libs/three/strata.toml",
        "fetch/zeta-1.0-py3-none-any.whl": None,
    }
    # Of two that have one name, the first stack's keeps it.
    beta, eta = "//libs/three:fetch/beta-1.0-py3-none-any.whl", "fetch/eta-1.0-py3-none-any.whl"
    assert ask(repository, "attr(stack, libs/three/*, kind(Fetch, //...))") == [beta, eta]
    assert ask(repository, "//...:fetch/beta*") == [beta, "fetch/beta-1.0-py3-none-any.whl"]


def test_a_query_is_about_the_stacks_that_it_names(repository: Repository) -> None:
    two = repository.stack("apps/two")
    found = ask(two, "kind(Archive) & //libs/...")
    assert found == ["//libs/three:app-three/archive[tar.gz]", "//libs/three:python/archive[tar.gz]"]
    assert ask(two, "kind(Lock)") == ["app-two/lock", "python/lock"]
