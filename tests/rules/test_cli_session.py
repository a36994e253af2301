from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest

from strata_engine.build import BuildResult
from strata_engine.errors import Diagnostic, SpecError
from strata_engine.events import BuildFinished, Outcome
from strata_engine.remote.settings import Upload
from strata_engine.remote.tally import Told
from strata_engine.run_record import ActionReport
from strata_engine.staleness import Reason, ReasonCode
from strata_rules.remotes import RemoteWishes
from strata_rules.selection import NO_WISHES, Wish, Wishes

COUNTS = {"up_to_date": 1, "cached": 0, "remote": 0, "executed": 1, "failed": 0, "skipped": 0}

RESULT = BuildResult(
    run="20260101T000000-abcdef",
    seconds=1.23456,
    counts=COUNTS,
    actions=(
        ActionReport(
            label="app-x/link",
            mnemonic="Link",
            key="ab/12",
            outcome=Outcome.EXECUTED,
            reasons=(Reason(ReasonCode.INPUT_CHANGED, "x.py", "1", "2"),),
            seconds=0.5,
            bytes=10,
        ),
    ),
    diagnostics=(),
    artifacts={},
    exit_code=0,
    remote=Told(hits=1, read=20, saved=1.5, faults={"stalled": 2}),
)


class Asked(NamedTuple):
    """What the command line asked of the session."""

    options: dict[str, Any]
    wishes: Wishes
    method: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


Strata = Callable[..., tuple[int, Asked]]


@pytest.fixture
def strata(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Strata]:
    """Give a command line whose session only notes what it is asked."""
    asked: list[Asked] = []
    given: dict[str, Any] = {"result": RESULT}

    class Recorder:
        stack = SimpleNamespace(root=tmp_path)
        standing, manifests, surveyed = (), (), SimpleNamespace(stale=())
        opened = SimpleNamespace(emit=lambda _: None)

        def __init__(self, options: dict[str, Any], wishes: Wishes, listeners: Any) -> None:
            self.options, self.wishes, self.listeners = options, wishes, listeners

        def __getattr__(self, method: str) -> Callable[..., Any]:
            def call(*arguments: Any, **keywords: Any) -> Any:
                asked.append(Asked(self.options, self.wishes, method, arguments, keywords))
                for listener in self.listeners:
                    listener(BuildFinished(seconds=1.2, counts=given["result"].counts))
                return (given["result"], None) if method == "run" else given["result"]

            return call

    @contextlib.contextmanager
    def open_session(
        path: Path, options: dict[str, Any], listeners: Any = (), *, wishes: Wishes = NO_WISHES, reading: bool = False
    ) -> Iterator[Recorder]:
        yield Recorder({"path": path, **options}, wishes, listeners)

    stub = ModuleType("strata_rules.session")
    vars(stub).update(Session=Recorder, SessionOptions=dict, Launch=tuple, open_session=open_session)
    for name in [name for name in sys.modules if name.startswith("strata_rules.cli")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "strata_rules.session", stub)
    monkeypatch.setenv("STRATA_CACHE_DIR", str(tmp_path / "store"))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    (tmp_path / "venvstacks.toml").touch()
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, result: BuildResult = RESULT) -> tuple[int, Asked]:
        asked.clear()
        given["result"] = result
        code = importlib.import_module("strata_rules.cli.main").run(list(arguments))
        return code, asked[0]

    yield run
    # What was imported here is bound to the stub and must not outlive it.
    for name in [name for name in sys.modules if name.startswith("strata_rules.cli")]:
        del sys.modules[name]


def test_build_options_reach_the_session(strata: Strata, capsys: pytest.CaptureFixture[str]) -> None:
    line = (
        "build venvstacks.toml app-x py/lock -j4 -k --locked --offline --publish --tag-outputs --force */link"
        " --force a/b --include app-* --include py --local-wheels w1 --local-wheels w2"
        " --no-index --build-dir b --output-dir ~/o --clean --no-if-needed --lock-if-needed --console plain"
        " --remote-cache file:///r --remote-cache https://c.example --remote-zone pr/3 --remote-upload off"
        " --remote-cache-required --remote-timeout 2.5"
    )
    code, asked = strata(*line.split())
    assert code == 0
    assert asked.options == {
        "path": Path("venvstacks.toml"),
        "build_dir": Path("b"),
        "output_dir": Path.home() / "o",
        "local_wheels": (Path("w1"), Path("w2")),
        "index": False,
        "offline": True,
        "platforms": (),
        "tag_outputs": True,
        "remote": RemoteWishes(("file:///r", "https://c.example"), "pr/3", Upload.OFF, required=True, timeout=2.5),
    }
    labels, settings = asked.arguments
    assert (asked.method, labels) == ("build", ("app-x", "py/lock"))
    assert (settings.jobs, settings.keep_going, settings.locked, settings.dry_run) == (4, True, True, False)
    assert settings.force == ("*/link", "a/b")
    assert asked.keywords == {"publish": True, "clean": True}
    assert asked.wishes == Wishes(build=Wish.YES, publish=True, include=("app-*", "py"))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "2 actions: 1 up to date, 1 executed in 1.2 s\n"


def test_defaults(strata: Strata) -> None:
    _, asked = strata("build")
    assert asked.options == {
        "path": Path("venvstacks.toml"),
        "build_dir": Path("_build"),
        "output_dir": Path("_artifacts"),
        "local_wheels": (),
        "index": True,
        "offline": False,
        "platforms": (),
        "tag_outputs": False,
        "remote": RemoteWishes(),
    }
    assert asked.keywords == {"publish": False, "clean": False}
    assert asked.wishes == Wishes(lock=Wish.IF_NEEDED, build=Wish.YES, publish=True)
    assert strata("lock")[1].wishes == Wishes(lock=Wish.YES)
    assert strata("publish")[1].wishes == Wishes(publish=True)
    assert strata("run", "x")[1].wishes == NO_WISHES


@pytest.mark.parametrize(
    ("line", "wishes", "locked"),
    [
        ("build --lock", Wishes(lock=Wish.IF_NEEDED, build=Wish.YES, publish=True), False),
        ("build --no-lock", Wishes(build=Wish.YES, publish=True), True),
        ("build --no-lock --lock-if-needed", Wishes(lock=Wish.IF_NEEDED, build=Wish.YES, publish=True), False),
        ("build --locked --lock", Wishes(build=Wish.YES, publish=True), True),
        ("build --no-build --no-clean", Wishes(lock=Wish.IF_NEEDED, publish=True), False),
        (
            "build --include x --reset-lock y --reset-lock z --allow-missing --lock-dependencies --build-derived",
            Wishes(
                lock=Wish.IF_NEEDED,
                build=Wish.YES,
                publish=True,
                include=("x",),
                reset_lock=("y", "z"),
                allow_missing=True,
                lock_dependencies=True,
                build_derived=True,
            ),
            False,
        ),
        (
            "build --no-include-dependencies --lock-dependencies --publish-dependencies --publish-derived",
            Wishes(lock=Wish.IF_NEEDED, build=Wish.YES, publish=True, publish_derived=True),
            False,
        ),
        (
            "build --include-dependencies --no-build-dependencies",
            Wishes(
                lock=Wish.IF_NEEDED,
                build=Wish.YES,
                publish=True,
                lock_dependencies=True,
                build_dependencies=True,
                publish_dependencies=True,
            ),
            False,
        ),
        ("lock --if-needed --clean --reset-lock p", Wishes(lock=Wish.IF_NEEDED, reset_lock=("p",)), False),
        ("lock --if-needed --upgrade --lock-dependencies", Wishes(lock=Wish.YES, lock_dependencies=True), False),
        (
            "publish --publish-dependencies --publish-derived --include a --no-allow-missing --no-force",
            Wishes(publish=True, include=("a",), publish_dependencies=True, publish_derived=True),
            False,
        ),
    ],
)
def test_what_venvstacks_options_ask_for(strata: Strata, line: str, wishes: Wishes, locked: bool) -> None:
    _, asked = strata(*line.split())
    assert asked.wishes == wishes
    assert next(each for each in asked.arguments if hasattr(each, "locked")).locked is locked


def test_build_json_is_frozen(strata: Strata, capsys: pytest.CaptureFixture[str]) -> None:
    strata("build", "--json", "-q")
    said = capsys.readouterr()
    assert said.err == ""
    assert json.loads(said.out) == {
        "schema": "strata.build",
        "version": 1,
        "dry_run": False,
        "run": "20260101T000000-abcdef",
        "seconds": 1.235,
        "exit_code": 0,
        "interrupted": False,
        "counts": COUNTS,
        "remote": {
            "hits": 1,
            "read": 20,
            "written": 0,
            "sent": 0,
            "waiting": 0,
            "saved": 1.5,
            "faults": {"stalled": 2},
            "degraded": "",
        },
        "actions": [
            {
                "label": "app-x/link",
                "mnemonic": "Link",
                "key": "ab/12",
                "outcome": "executed",
                "reasons": [{"reason": "input-changed", "subject": "x.py", "old": "1", "new": "2"}],
                "seconds": 0.5,
                "bytes": 10,
                "because": "",
            }
        ],
        "diagnostics": [],
    }


def test_check_finds_work_and_does_none(strata: Strata, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("build", "lock"):
        code, asked = strata(command, "--check")
        assert code == 4
        assert next(each for each in asked.arguments if hasattr(each, "dry_run")).dry_run
        assert capsys.readouterr().err == "2 actions: 1 up to date, 1 would run in 1.2 s\n"
    nothing = BuildResult(
        run="", seconds=0, counts={**COUNTS, "executed": 0}, actions=(), diagnostics=(), artifacts={}, exit_code=0
    )
    assert strata("build", "--check", result=nothing)[0] == 0


def test_failures_that_no_event_brought_are_said(strata: Strata, capsys: pytest.CaptureFixture[str]) -> None:
    bad = Diagnostic("disk-full", "no room")
    failed = BuildResult(run="", seconds=0, counts=COUNTS, actions=(), diagnostics=(bad,), artifacts={}, exit_code=3)
    assert strata("build", "--console", "none", result=failed)[0] == 3
    assert capsys.readouterr().err == "error[disk-full]: no room\n"


def test_lock_and_publish(strata: Strata) -> None:
    _, asked = strata("lock", "--upgrade", "--include", "py")
    assert (asked.method, asked.keywords) == ("lock", {"upgrade": True})
    _, asked = strata("publish", "--format", "tar.zst", "--force", "--dry-run", "--tag-outputs", "--output-dir", "x")
    [settings] = asked.arguments
    assert (asked.method, asked.keywords) == ("publish", {"format": "tar.zst"})
    assert asked.options["tag_outputs"]
    assert settings.dry_run
    assert settings.force


def test_what_follows_the_application_is_its_own(strata: Strata, capsys: pytest.CaptureFixture[str]) -> None:
    idle = BuildResult(
        run="", seconds=0, counts={"up_to_date": 3}, actions=(), diagnostics=(), artifacts={}, exit_code=0
    )
    code, asked = strata("run", "-q", "hello", "--json", "-x", result=idle)
    assert (code, asked.method, asked.arguments[0]) == (0, "run", "hello")
    strata("run", ".", "hello", "--", "--json", result=idle)
    # An application that is up to date starts without a word.
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("line", ["build -j -1", "build --json=yes", "publish --format rar", "run", "run ."])
def test_wrong_options(strata: Strata, line: str) -> None:
    with pytest.raises(SpecError) as caught:
        strata(*line.split())
    assert caught.value.diagnostics[0].id == "usage"
