"""What `graph why` and its family answer, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from space import STACK, Ran, Space

ALPHA = '["alpha", "beta"]'


def roots(ran: Ran) -> list[tuple[str, str, str | None, str | None]]:
    return [(each["reason"], each["subject"], each["old"], each["new"]) for each in ran.json["root_causes"]]


@pytest.fixture
def edited(built: Space) -> Space:
    """Give a workspace in which a requirement and a module were changed at once."""
    built.replace("venvstacks.toml", ALPHA, '["alpha==0.9", "beta"]')
    built.write("hello.py", "import alpha\n")
    built.ok("build")
    return built


REQUIREMENT = ("parameter-changed", "venvstacks.toml#frameworks.low.requirements", "alpha", "alpha==0.9")


def test_a_label_may_be_an_action_a_layer_a_wheel_or_a_pattern(edited: Space) -> None:
    for word, label in (
        ("framework-low/link", "framework-low/link"),
        ("framework-low", "framework-low"),
        ("alpha", "wheel/alpha-0.9-py3-none-any.whl"),
        ("wheel/alpha-0.9-py3-none-any.whl", "wheel/alpha-0.9-py3-none-any.whl"),
        ("framework-l*", "framework-l*"),
    ):
        ran = edited.ok("graph", "why", word, "--json")
        assert roots(ran) == [REQUIREMENT], word
        assert ran.json["label"] == label
    ran = edited.ok("graph", "why", "app-hello", "--json")
    assert [root[:2] for root in roots(ran)] == [("input-changed", "hello.py")]
    both = edited.ok("graph", "why", "--json")
    assert {root[1] for root in roots(both)} == {REQUIREMENT[1], "hello.py"}
    assert sum(cause["actions"] for cause in both.json["root_causes"]) == len(both.json["chain"])


def test_the_document_has_the_way_and_where_the_wave_stopped(edited: Space) -> None:
    document = edited.ok("graph", "why", "framework-low/link", "--json").json
    assert list(document) == ["schema", "version", "label", "run", "against", "root_causes", "chain", "cutoff"]
    assert [(each["label"], each["outcome"]) for each in document["chain"]][::3] == [
        ("framework-low/link", "executed"), ("framework-low/lock", "executed"),
    ]  # fmt: skip
    assert document["cutoff"] == ["app-world/lock"], "it was made again, because of the pins below, and is the same"
    [cause] = document["root_causes"]
    assert cause["actions"] == 7
    assert cause["seconds"] > 0


def test_a_build_is_named_by_its_id_its_place_or_its_commit(edited: Space) -> None:
    runs = edited.ok("graph", "runs", "--json").json["runs"]
    assert len(runs) == 2
    for name in ("last~1", runs[1]["run"], runs[1]["run"].rpartition("-")[2]):
        assert edited.ok("graph", "why", "--run", name, "--json").json["run"] == runs[1]["run"]
    assert "was up to date" in edited.ok("graph", "why", "python", "--run", "last").stdout
    for name, said in (("last~2", "2 are recorded"), ("nothing", "no build `nothing`"), ("2", "several builds")):
        ran = edited.strata("graph", "why", "--run", name)
        assert (ran.code, said in ran.stderr) == (2, True), ran.stderr


def test_what_nobody_knows_is_refused_with_what_may_be_meant(built: Space) -> None:
    ran = built.strata("graph", "why", "app-helo")
    assert (ran.code, "did you mean `app-hello`?" in ran.stderr) == (2, True)
    ran = built.strata("graph", "why", "app-hello", "app-world")
    assert ran.code == 2
    assert built.strata("graph", "why", "--dry", "--run", "last").code == 2


def test_where_nothing_was_built_there_is_nothing_to_explain(empty: Space) -> None:
    empty.write("venvstacks.toml", STACK)
    for arguments in (["why"], ["why", "app-hello"], ["runs"], ["why-not", "app-hello", "--input", "x"]):
        ran = empty.strata("graph", *arguments)
        assert (ran.code, "no-history" in ran.stderr) == (2, True), ran.stderr


def test_dry_tells_what_would_run_now_and_changes_nothing(built: Space) -> None:
    assert built.ok("graph", "why", "--dry", "--json").json["root_causes"] == []
    built.replace("venvstacks.toml", ALPHA, '["alpha==0.9", "beta"]')
    built.write("hello.py", "import alpha\n")
    before = {path: path.read_bytes() for path in (built.root / ".strata").glob("*") if path.is_file()}
    ran = built.ok("graph", "why", "--dry", "--json")
    assert ran.json["run"] is None
    assert {root[1] for root in roots(ran)} == {REQUIREMENT[1], "hello.py"}
    hello = built.ok("graph", "why", "app-hello", "--dry", "--json")
    assert {root[1] for root in roots(hello)} == {REQUIREMENT[1], "hello.py"}, "what is known of it by now counts, too"
    low = built.ok("graph", "why", "framework-low/lock", "--dry", "--json")
    assert roots(low) == [REQUIREMENT]
    after = {path: path.read_bytes() for path in (built.root / ".strata").glob("*") if path.is_file()}
    assert before == after
    assert built.strata("graph", "why", "nothing", "--dry").code == 2


def test_a_build_of_another_machine_is_compared_through_a_file(built: Space, tmp_path: Path) -> None:
    exported = built.ok("graph", "runs", "--export", "last").stdout
    other = built.copy(tmp_path / "elsewhere", tmp_path / "other-store")
    other.write("ci.json", exported)
    other.replace("venvstacks.toml", ALPHA, '["alpha==0.9", "beta"]')
    other.write("world/names.py", "NAME = 'narrow'\n")
    other.ok("build")
    ran = other.ok("graph", "why", "app-world/link", "--against", "ci.json", "--json")
    run = json.loads(exported)["record"]["run"]
    assert ran.json["against"] == run
    assert {root[1] for root in roots(ran)} == {"world/names.py"}
    everything = other.ok("graph", "why", "--against", "ci.json", "--json")
    assert {root[1] for root in roots(everything)} == {"world/names.py", REQUIREMENT[1]}
    assert REQUIREMENT in roots(everything)
    same = other.ok("graph", "why", "python", "--against", "ci.json")
    assert "has the same key" in same.stdout
    diff = other.ok("graph", "diff", "ci.json", "--json").json
    assert "wheel/alpha-0.9-py3-none-any.whl" in diff["only_new"]
    assert "wheel/alpha-1.0-py3-none-any.whl" in diff["only_old"]
    assert diff["diverged"] == []


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"schema": "strata.run", "version": 1, "record": 5}', "\0"])
def test_a_file_that_is_no_build_is_refused(built: Space, content: str) -> None:
    built.write("ci.json", content)
    ran = built.strata("graph", "why", "--against", "ci.json")
    assert (ran.code, ran.stdout) == (2, "")
    assert "error[not-a-run]: `ci.json` is not the record of a build" in ran.stderr
    assert built.strata("graph", "why", "--against", "none.json").code == 2


def test_a_placed_file_is_followed_to_its_wheel(built: Space) -> None:
    site = built.site("framework-low").relative_to(built.root)

    def asked(path: str) -> Any:
        return built.ok("graph", "why", "--output", path, "--json").json

    found = asked(f"{site}/alpha.py")
    assert [each["label"] for each in found["way"]] == [
        "framework-low/link", "framework-low/install", "wheel/alpha-1.0-py3-none-any.whl",
    ]  # fmt: skip
    assert found["made_of"] == ["fetch/alpha-1.0-py3-none-any.whl"]
    assert found["intact"]
    hello = built.site("app-hello").relative_to(built.root)
    assert asked(f"{hello}/hello.py")["source"] == "hello.py"
    world = built.site("app-world").relative_to(built.root)
    assert asked(f"{world}/world")["source"] == "world"
    assert asked(f"{world}/world/names.py")["source"] == "world/names.py"
    assert [each["label"] for each in asked("_build/app-hello")["way"]] == ["app-hello/link"]
    assert asked("requirements/app-world/pylock.app-world.toml")["way"][0]["label"] == "app-world/lock"
    built.write(f"{site}/alpha.py", "edited")
    assert not asked(f"{site}/alpha.py")["intact"]
    said = built.ok("graph", "why", "--output", f"{site}/alpha.py").stdout
    assert "somebody has changed it" in said
    for path in ("hello.py", "_build/nothing", "/etc/passwd", f"{site}/nothing.py"):
        ran = built.strata("graph", "why", "--output", path)
        assert (ran.code, "unknown-output" in ran.stderr) == (2, True), ran.stderr


def test_an_archive_is_known_by_its_content(space: Space) -> None:
    space.ok("publish", "--include", "app-hello")
    found = space.ok("graph", "why", "--output", "_artifacts/app-hello.tar.gz", "--json").json
    assert [each["label"] for each in found["way"]] == ["app-hello/archive[tar.gz]"]


def test_why_not_says_what_is_no_input_and_where_a_change_ended(built: Space) -> None:
    def asked(word: str, path: str) -> Any:
        return built.ok("graph", "why-not", word, "--input", path, "--json").json

    no = asked("app-hello", "world/names.py")
    assert (no["declared"], no["nearest"][0]) == (False, "hello.py")
    built.write("README.md", "text")
    assert not asked("app-hello", "README.md")["declared"]
    whole = asked("app-hello", "venvstacks.toml")
    assert not whole["declared"]
    assert "venvstacks.toml#applications.hello.requirements" in whole["nearest"]
    built.replace("venvstacks.toml", ALPHA, '["alpha>=0.5", "beta"]')
    built.ok("build")
    cut = asked("app-world", "venvstacks.toml#frameworks.low.requirements")
    assert (cut["declared"], cut["reads"], cut["cutoff"]) == (True, ["framework-low/lock"], "framework-low/lock")
    built.replace("venvstacks.toml", '["alpha>=0.5", "beta"]', '["alpha==0.9", "beta"]')
    built.ok("build")
    # What others take of the lock has changed, and what this one takes of it has not.
    for word, end in (("app-world/install", "framework-low/lock"), ("app-world/lock", None)):
        assert asked(word, "venvstacks.toml#frameworks.low.requirements")["cutoff"] == end
    yes = asked("app-hello", "hello.py")
    assert (yes["reads"], yes["changed"]) == (["app-hello/link"], False)
    built.write("hello.py", "changed = True\n")
    assert asked("app-hello", "hello.py")["changed"]
    inside = asked("app-world", "world/names.py")
    assert (inside["reads"], inside["changed"]) == (["app-world/link"], False)


def test_runs_are_listed_and_compared(edited: Space) -> None:
    runs = edited.ok("graph", "runs", "--json").json["runs"]
    assert [run["command"] for run in runs] == [["build"], ["build"]]
    assert {cause["subject"] for cause in runs[0]["root_causes"]} == {REQUIREMENT[1], "hello.py"}
    edited.ok("build")
    edited.ok("build")
    text = edited.ok("graph", "runs").stdout.splitlines()
    assert "1 build with nothing to do" in text[1]
    assert len(text) == 5, text
    only = edited.ok("graph", "runs", "framework-low", "--json").json["runs"]
    assert [run["run"] for run in only] == [run["run"] for run in runs]
    diff = edited.ok("graph", "diff", "last~3", "last", "--json").json
    assert {cause["subject"] for cause in diff["root_causes"]} == {REQUIREMENT[1], "hello.py"}
    assert diff["same"] > 10
    assert edited.ok("graph", "diff", "last", "--json").json["changed"] == []


def test_one_key_with_two_outputs_is_told_file_by_file(built: Space) -> None:
    assert built.ok("graph", "runs", "--check").stdout == "every key has one output, and every input has mattered\n"
    path = built.root / ".strata" / "runs.jsonl"
    record = json.loads(path.read_bytes().splitlines()[-1])
    [one, other] = [report for report in record["actions"] if report["label"] in ("app-hello/link", "app-world/link")]
    one["key"] = other["key"]
    path.write_text(json.dumps(record, separators=(",", ":")) + "\n")
    ran = built.strata("graph", "runs", "--check", "--json")
    [found] = ran.json["diverged"]
    assert ran.code == 4
    assert [made["label"] for made in found["made"]] == ["app-hello/link", "app-world/link"]
    assert any(file.endswith("/hello.py") for file in found["files"])
    assert built.strata("graph", "runs", "framework-up", "--check").code == 0


@pytest.mark.parametrize("format_", ["dot", "mermaid", "github"])
def test_pictures_name_the_causes(edited: Space, format_: str) -> None:
    for words in ((), ("framework-low",)):
        text = edited.ok("graph", "why", *words, "--format", format_).stdout
        assert "framework-low/lock" in text
        assert "frameworks.low.requirements" in text.replace("\\_", "_")


def test_a_terminal_gets_no_control_characters_from_a_file(built: Space) -> None:
    document = json.loads(built.ok("graph", "runs", "--export", "last").stdout)
    document["held"]["evil\x1b[2J/link"] = document["held"]["app-hello/link"] | {"output": ""}
    built.write("ci.json", json.dumps(document))
    assert "\x1b" not in built.ok("graph", "diff", "ci.json").stdout
