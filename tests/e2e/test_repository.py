"""A git repository with several stack files as one graph: what runs, what each stack has then, and what is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from repositories import Repository, small_stack, write_repository
from space import LAYERS, Ran, Space, copy_tree

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

PYTHON = "//apps/two:python"
STACKS = ("apps/one", "apps/two", "libs/three")


@pytest.fixture(scope="module")
def made(template: Space, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Give the repository, nothing of it built yet. Not to be changed."""
    folder = tmp_path_factory.mktemp("repository")
    return write_repository(template, folder / "root", folder / "store")


def copied(made: Repository, to: Path) -> Repository:
    to.mkdir(exist_ok=True)
    copy_tree(made.root, to / "root")
    copy_tree(made.store, to / "store")
    return Repository(to / "root", to / "store")


@pytest.fixture
def fresh(made: Repository, tmp_path: Path) -> Repository:
    return copied(made, tmp_path)


@pytest.fixture(scope="module")
def whole(made: Repository, tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, Ran]:
    """Give the repository after its first build, and that. Not to be changed."""
    folder = tmp_path_factory.mktemp("built")
    repository = copied(made, folder)
    return repository, repository.build("//...")


@pytest.fixture
def repository(whole: tuple[Repository, Ran], tmp_path: Path) -> Repository:
    """Give a copy that has been built; where it was built before, nobody knows it."""
    found = copied(whole[0], tmp_path)
    # Stamps are of other files now: what is placed is looked at again.
    found.ok("build", "//...")
    return found


def records(folder: Path, part: str = "") -> list[dict[str, Any]]:
    path = folder / f".strata/{part}runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def actions(record: dict[str, Any]) -> dict[str, str]:
    return {action["label"]: action["outcome"] for action in record["actions"]}


def idle(repository: Repository, *folders: str) -> None:
    """Require that these stacks have nothing to do, alone or together, and that then a snapshot answers."""
    counts = repository.build("//...").counts
    assert counts["up_to_date"] == sum(counts.values())
    for folder in folders:
        stack = repository.stack(folder)
        counts = stack.build().counts
        assert counts["up_to_date"] == sum(counts.values()), folder
        stack.build()
        assert records(stack.root)[-1]["settings"] == {"answered": "by a snapshot"}


# -- one graph ---------------------------------------------------------------------------------------------------------


def test_equal_actions_are_there_once_and_run_once(whole: tuple[Repository, Ran]) -> None:
    _, built = whole
    labels = Counter(action["label"] for action in built.json["actions"])
    assert set(labels.values()) == {1}
    shared = {label for label in labels if not label.startswith("//")}
    names = ("alpha", "beta", "gamma", "zeta", "eta")
    assert shared == {f"{kind}/{name}-1.0-py3-none-any.whl" for kind in ("fetch", "wheel") for name in names}
    betas = {label for label in labels if "fetch/beta" in label}
    assert len(betas) == 2
    executed = [label for label in built.executed if "zeta" in label]
    assert sorted(executed) == ["fetch/zeta-1.0-py3-none-any.whl", "wheel/zeta-1.0-py3-none-any.whl"]
    # The runtime is one and the same, and was captured by the template's build.
    assert not [label for label in built.executed if label.endswith("/capture")]


def test_keys_and_outputs_are_those_of_single_builds(whole: tuple[Repository, Ran], fresh: Repository) -> None:
    repository, built = whole
    keys = built.keys
    for folder in ("apps/one", "libs/three"):
        for label, key in fresh.stack(folder).build().keys.items():
            assert key in {keys.get(label), keys.get(f"//{folder}:{label}")}, label
        there, here = (root / folder for root in (repository.root, fresh.root))
        layers = [layer.name for layer in (here / "_build").iterdir() if layer.name != "python"]
        for layer in layers:
            assert contents(there / "_build" / layer) == contents(here / "_build" / layer)
        assert contents(there / "requirements").keys() == contents(here / "requirements").keys()
        pins = "requirements/python/runtime.python.json"
        assert (there / pins).read_bytes() == (here / pins).read_bytes()
    # What was built alone is known to the whole.
    again = fresh.build("//...")
    assert {label.partition(":")[0] for label in again.executed} <= {"//apps/two"}


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_nothing_is_left_to_do_for_any_stack_alone_or_together(repository: Repository) -> None:
    idle(repository, *STACKS)
    assert repository.stack("apps/two").ok("run", "two").stdout == "two zeta of this repository\n"
    assert repository.stack("libs/three").ok("run", "three").stdout == "three another beta\n"
    assert repository.git("status", "--porcelain", "--untracked-files=all", "--", ".strata") == ""


def test_a_change_in_one_stack_concerns_it_alone(repository: Repository) -> None:
    two = repository.stack("apps/two")
    two.write("two.py", "print('other')\n")
    before = len(records(repository.stack("apps/one").root))
    summary = repository.root.parent / "summary.md"
    built = repository.build("//...", env={"GITHUB_STEP_SUMMARY": str(summary)})
    assert built.executed == {"//apps/two:app-two/link"}
    assert "| input-changed apps/two/two.py |" in summary.read_text()
    assert built.reasons("//apps/two:app-two/link") == [("input-changed", "apps/two/two.py")]
    record, own = records(repository.root, "repository/")[-1], records(two.root)[-1]
    assert actions(record) == {"//apps/two:app-two/link": "executed"}
    assert actions(own) == {"app-two/link": "executed"}
    assert own["run"] == record["run"]
    assert [reason["subject"] for reason in own["actions"][0]["reasons"]] == ["two.py"]
    others = records(repository.stack("apps/one").root)
    assert [actions(each) for each in others[before:]] == [{}]
    assert "input-changed two.py" in two.ok("graph", "why", "app-two").stdout
    why = ("graph", "why")
    assert repository.ok(*why, "//apps/two:app-two", "--json").json == two.ok(*why, "app-two", "--json").json
    assert "input-changed apps/two/two.py" in repository.ok(*why, "//...").stdout
    assert repository.strata(*why, "//libs/three:app-tree").code == 2
    drawn = repository.ok("graph", "show", "//apps/two:app-two").stdout
    assert {"//apps/two:app-two", "fetch", "wheel"} <= set(drawn.splitlines())
    assert "//apps/one" not in drawn
    idle(repository, "apps/two")
    assert repository.build("//...", "--force", "//apps/two:app-two").executed == {"//apps/two:app-two/link"}


def test_a_shared_wheel_that_changes_is_made_once_for_all_that_want_it(repository: Repository) -> None:
    repository.stack("apps/one").wheel("zeta", {"zeta.py": b"NAME = 'newer'\n"})
    built = repository.build("//...")
    assert sorted(label for label in built.executed if "/zeta" in label) == [
        "fetch/zeta-1.0-py3-none-any.whl", "wheel/zeta-1.0-py3-none-any.whl",
    ]  # fmt: skip
    assert {label for label in built.executed if label.endswith("/link")} == {
        "//apps/one:app-world/link", "//apps/two:app-two/link",
    }  # fmt: skip
    assert not [label for label in built.executed if label.startswith("//libs/")]
    idle(repository, "apps/one")


# -- labels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "placed"),
    [
        (["//libs/three"], {"//libs/three:python", "//libs/three:app-three"}),
        (["//apps/one:*-low/link", "//apps/two:python"], {"//apps/one:python", "//apps/one:framework-low", PYTHON}),
        (["kind(Link) & //libs/... - //libs/three:python"], {"//libs/three:python", "//libs/three:app-three"}),
        (["//apps/...:*/lock"], set()),
        (["//libs/three:app-three/archive[tar.gz]"], set()),
    ],
)  # fmt: skip
def test_labels_say_what_is_built(fresh: Repository, words: list[str], placed: set[str]) -> None:
    built = fresh.build(*words)
    folders = ((folder, fresh.root / folder / "_build") for folder in STACKS)
    assert placed == {f"//{name}:{path.name}" for name, folder in folders for path in folder.glob("*") if path.is_dir()}
    archived = [label for label in built.keys if "/archive" in label]
    assert archived == [word for word in words if "/archive" in word]


def test_from_a_folder_inside_labels_mean_the_same(repository: Repository) -> None:
    built = repository.build("//libs/...", cwd=repository.root / "apps" / "two")
    assert {action["label"] for action in built.json["actions"]} >= {"//libs/three:app-three/link"}
    assert built.counts["up_to_date"] == sum(built.counts.values())


def test_a_query_that_means_nothing_builds_nothing(repository: Repository) -> None:
    for words in (["kind(Link) & //apps/two:* & //libs/..."], ["apps/two", "kind(Link) & kind(Lock)"]):
        assert sum(repository.build(*words).counts.values()) == 0


def test_a_query_on_one_stack(repository: Repository) -> None:
    one = repository.stack("apps/one")
    built = one.build("kind(Archive) & app-*")
    assert {label for label in built.keys if "archive" in label} == {
        "app-hello/archive[tar.gz]", "app-world/archive[tar.gz]",
    }  # fmt: skip
    # What a query means may be something else the next time: no snapshot answers it.
    one.build("kind(Archive) & app-*")
    assert records(one.root)[-1]["settings"] == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["//apps/tow:app-two"], ["unknown-stack", "did you mean `//apps/two`?"]),
        (["//apps/two:app-tow"], ["unknown-label", "did you mean `//apps/two:app-two`?"]),
        (["//...", "app-two"], ["bad-label", "does not begin with `//`"]),
        (["--show", "//..."], ["usage"]),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told(made: Repository, words: list[str], said: list[str]) -> None:
    cwd = made.root / "apps" / "two"
    ran = made.strata("build", *words, cwd=cwd)
    assert ran.code == 2
    assert all(each in ran.stderr for each in said), ran.stderr


def test_without_a_repository_there_are_no_such_labels(template: Space, tmp_path: Path) -> None:
    ran = Space(tmp_path, template.store).strata("build", "//...")
    assert ran.code == 2
    assert "error[no-repository]" in ran.stderr


def test_two_stack_files_in_a_folder_have_to_be_named(fresh: Repository) -> None:
    two = fresh.stack("apps/two")
    # Another name for the runtime: the folder's stacks share it with their locks and outputs.
    two.write("strata.toml", small_stack("more", "../one/wheels").replace('"python"', '"base"'))
    two.write("more.py", "print('more')\n")
    for words in (["//..."], ["//apps/two:app-two"]):
        ran = fresh.strata("build", *words)
        assert ran.code == 2
        assert "error[two-stack-files]: `apps/two` has both" in ran.stderr
        assert "`//apps/two/venvstacks.toml:LABEL`" in ran.stderr
    built = fresh.build("//apps/two/strata.toml:app-more", "//apps/two/venvstacks.toml:app-two")
    assert {"//apps/two/strata.toml:app-more/link", "//apps/two/venvstacks.toml:app-two/link"} <= set(built.keys)
    assert two.ok("run", "strata.toml", "more").stdout == "more\n"


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_stack_file_with_an_error_keeps_all_from_being_built_unless_asked_to_go_on(fresh: Repository) -> None:
    fresh.stack("apps/two").replace("venvstacks.toml", 'launch_module = "two.py"', 'launch_modul = "two.py"')
    fresh.stack("libs/three").replace("strata.toml", 'launch_module = "three.py"', 'launch_module = "four.py"')
    ran = fresh.strata("build", "//...")
    assert ran.code == 2
    assert "apps/two/venvstacks.toml:" in ran.stderr
    assert "libs/three/strata.toml:" in ran.stderr
    assert not (fresh.root / "apps/one/_build").exists()
    ran = fresh.strata("build", "-k", "//...", "--json")
    assert ran.code == ran.json["exit_code"] == 2
    assert [said["file"] for said in ran.json["diagnostics"]][-1] == "libs/three/strata.toml"
    assert ran.counts["failed"] == 0
    assert fresh.stack("apps/one").build().counts["executed"] == 0


def test_a_failing_action_is_that_of_its_stack(fresh: Repository) -> None:
    (fresh.root / "libs/three/wheels/eta-1.0-py3-none-any.whl").write_bytes(b"no wheel")
    ran = fresh.strata("build", "-k", "//...", "--json")
    assert ran.code != 0
    assert {label.partition(":")[0] for label in ran.labels("failed") | ran.labels("skipped")} == {"//libs/three"}
    assert records(fresh.root / "libs/three")[-1]["exit_code"] == ran.code
    assert records(fresh.root / "apps/two")[-1]["exit_code"] == 0
    assert fresh.stack("apps/two").build().counts["executed"] == 0


def test_locked_tells_all_stale_locks_of_all_stacks(repository: Repository) -> None:
    repository.stack("apps/two").replace("venvstacks.toml", '"alpha", "zeta"', '"alpha"')
    repository.stack("libs/three").replace("strata.toml", '"beta", "eta"', '"beta"')
    ran = repository.strata("build", "--locked", "//...")
    assert ran.code == 2
    assert "app-two/lock` would have to run" in ran.stderr
    assert "app-three/lock` would have to run" in ran.stderr


def test_folders_named_after_lock_versions(fresh: Repository) -> None:
    for folder, file in (("apps/two", "venvstacks.toml"), ("libs/three", "strata.toml")):
        stack = fresh.stack(folder)
        stack.replace(file, "launch_module", "versioned = true\nlaunch_module")
    built = fresh.build("//apps/two", "//libs/...")
    assert (fresh.root / "apps/two/_build/app-two@1").is_dir()
    assert (fresh.root / "libs/three/_build/app-three@1").is_dir()
    assert "//apps/two:app-two/lock" in built.executed
    assert len({record["run"] for record in records(fresh.root / "apps/two")}) == 1
    assert fresh.stack("apps/two").build().counts["executed"] == 0
    assert fresh.build("//apps/two", "//libs/...").counts["executed"] == 0


# -- several at once, and none to the end ------------------------------------------------------------------------------


def started(repository: Space, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*repository.command(), *arguments],
        cwd=repository.root,
        env=repository.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def held(first: subprocess.Popen[str], lock: Path) -> None:
    """Wait until a build has a lock, and hold it still."""
    while first.poll() is None and not (lock.exists() and lock.read_text()):
        time.sleep(0.002)
    first.send_signal(signal.SIGSTOP)


def test_builds_of_what_another_builds_wait_for_it(fresh: Repository) -> None:
    first = started(fresh, "build", "//...")
    held(first, fresh.root / "libs/three/.strata/lock")
    others = [started(fresh, "build", "//..."), started(fresh.stack("libs/three"), "build")]
    try:
        lines = [other.stderr.readline() for other in others if other.stderr is not None]
    finally:
        first.send_signal(signal.SIGCONT)
    told = first.communicate(timeout=120)[1]
    rest = [other.communicate(timeout=120)[1] for other in others]
    assert [each.returncode for each in (first, *others)] == [0, 0, 0], (told, rest)
    said = f"waiting for the workspace, held by process {first.pid} since"
    assert [line[: len(said)] for line in lines] == [said, said]
    assert "executed" in told
    assert not [each for each in rest if "executed" in each]


def test_a_build_that_is_interrupted_leaves_all_consistent(fresh: Repository) -> None:
    build = started(fresh, "build", "-j1", "//...")
    assert build.stderr is not None
    assert next((line for line in build.stderr if "executed" in line), None)
    build.send_signal(signal.SIGINT)
    build.communicate(timeout=120)
    assert build.returncode == 130
    [record] = records(fresh.root, "repository/")
    assert record["exit_code"] == 130
    fresh.build("//...")
    idle(fresh, "apps/one")


def test_a_build_that_is_killed_leaves_nothing_that_is_wrong(fresh: Repository) -> None:
    build = started(fresh, "build", "-j1", "//libs/...")
    assert build.stderr is not None
    assert next((line for line in build.stderr if "executed" in line), None)
    os.kill(build.pid, signal.SIGKILL)
    build.communicate(timeout=120)
    fresh.build("//libs/...")
    assert fresh.stack("libs/three").build().counts["executed"] == 0
    assert fresh.stack("libs/three").ok("run", "three").stdout == "three another beta\n"


def archives(repository: Repository) -> dict[str, bytes]:
    """Give all archives that were published, by path."""
    return {str(path.relative_to(repository.root)): path.read_bytes() for path in repository.root.rglob("*.tar.gz")}


def published_layers(ran: Ran) -> list[str]:
    return sorted(layer["layer_name"] for layers in ran.json["layers"].values() for layer in layers)


def test_stacks_are_published_together_as_each_alone(made: Repository, tmp_path: Path) -> None:
    together, alone = (copied(made, tmp_path / name) for name in ("together", "alone"))
    ran = together.publish("//apps/...")
    assert published_layers(ran) == sorted((*LAYERS, "app-two", "python"))
    for folder in ("apps/one", "apps/two"):
        alone.stack(folder).publish()
        texts = [each.stack(folder).read("_artifacts/__venvstacks__/venvstacks.json") for each in (together, alone)]
        # When something was locked is no matter of what it is.
        one, other = (re.sub(r'"locked_at": "[^"]*"', "", text) for text in texts)
        assert one == other
    assert archives(together) == archives(alone)
    # Nothing is built into its place, and nothing is left to do.
    assert not list(together.root.rglob("_build"))
    again = together.publish("//apps/...")
    assert set(again.labels("up_to_date")) == set(again.keys)
    assert together.stack("apps/two").publish().counts["executed"] == 0


def test_what_is_published_of_stacks_is_what_labels_and_queries_mean(fresh: Repository) -> None:
    fresh.publish("//apps/one:app-hello", "//apps/two:python/archive[tar.gz]")
    assert sorted(archives(fresh)) == ["apps/one/_artifacts/app-hello.tar.gz", "apps/two/_artifacts/python.tar.gz"]
    fresh.ok("build", "--publish", "//...")
    fresh.commit()
    changed = "rdeps(//..., changed(HEAD)) & kind(Archive)"
    assert fresh.publish(changed).json["actions"] == []
    fresh.write("apps/two/two.py", "print('other')\n")
    dry = fresh.ok("publish", "--dry-run", changed)
    assert dry.stdout == "apps/two/_artifacts/app-two.tar.gz  would be written\n"
    before = archives(fresh)
    assert published_layers(fresh.publish(changed)) == ["app-two"]
    after = archives(fresh)
    assert {path for path in after if after[path] != before[path]} == {"apps/two/_artifacts/app-two.tar.gz"}


def test_other_commands_say_what_labels_are_for(fresh: Repository) -> None:
    ran = fresh.strata("lock", "//...")
    assert ran.code == 2
    assert "hint: `build`, `publish` and `graph` take labels that begin with `//`" in ran.stderr
    assert {label.rpartition("/")[2] for label in fresh.build("kind(Lock) & //...").keys} == {"lock"}
