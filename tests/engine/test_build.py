from __future__ import annotations

import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builds import Site, counts, graph_of, make, outcomes, text_of
from terminals import Screen

from strata_engine import build as build_module
from strata_engine import known, run_record
from strata_engine.action import Action, Execution, Expansion, Literal, Ref, Source
from strata_engine.decision import Settings
from strata_engine.errors import ActionError, SpecError
from strata_engine.events import Aborted, BuildFinished, BuildStarted, Outcome, Waiting, Warned
from strata_engine.tree import Artifact, File, assemble
from strata_engine.workspace import Workspace

SOURCES = Path(__file__).parents[1]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "w")


# -- results and records -----------------------------------------------------------------------------------------------


def test_each_action_of_the_closure_is_counted_once(site: Site) -> None:
    items = [make("base"), make("a", "base"), make("b", "base"), make("end", "a", "b"), make("unwanted", "base")]
    result = site.build(items, ["end", "a"])
    assert result.counts == {"up_to_date": 0, "cached": 0, "remote": 0, "executed": 4, "failed": 0, "skipped": 0}
    assert list(outcomes(result)) == ["a", "b", "base", "end"]
    assert set(result.artifacts) == {"a", "b", "base", "end"}
    assert counts(site.build(items, ["end", "a"])) == {"up_to_date": 4}
    assert counts(site.build(items)) == {"up_to_date": 4, "executed": 1}
    assert counts(site.build(items, [])) == {}


def test_a_label_that_nobody_makes_is_refused_before_anything_runs(site: Site) -> None:
    with pytest.raises(SpecError, match="there is no action called `b`"):
        site.build([make("a")], ["b"])
    assert site.heard(BuildStarted) == []


def test_a_build_of_two_parts_is_told_as_one(site: Site) -> None:
    with site.opened() as build:
        first = build.run(graph_of([make("lock")]), ["lock"], last=False)
        assert site.heard(BuildFinished) == []
        second = build.run(graph_of([make("lock"), make("end", "lock")]), ["end"], earlier=first)
    assert counts(second) == {"executed": 2}
    assert second.seconds >= first.seconds
    [finished] = site.heard(BuildFinished)
    assert finished.counts == second.counts
    [record] = run_record.read(site.root / ".strata" / "runs.jsonl")
    assert record.counts == second.counts


def test_looking_is_silent_and_runs_nothing(site: Site) -> None:
    site.build([make("a")])
    with site.opened() as build:
        done = build.look(graph_of([make("a"), make("b", "a"), make("c", "b")]), ["c"])
    assert {label: finished.outcome for label, finished in done.items()} == {
        "a": Outcome.UP_TO_DATE, "b": Outcome.EXECUTED, "c": Outcome.EXECUTED,
    }  # fmt: skip
    assert site.events == []


def test_builds_are_recorded_with_what_was_asked_but_no_secret(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["strata", "build", "--index", "https://me:secret@host/simple"])

    def fail(execution: Execution) -> Artifact:
        raise ActionError.of("no", "no")

    site.build([make("a"), make("b", "a")])
    site.build([make("a"), make("b", "a", run=fail, say="2"), make("c", "b")])
    site.build([make("z")], dry_run=True)
    first, second = run_record.read(site.root / ".strata" / "runs.jsonl")
    assert first.command == ("build", "--index", "https://***@host/simple")
    assert (first.exit_code, second.exit_code) == (0, 1)
    assert first.run != second.run
    assert second.counts == {"up_to_date": 1, "cached": 0, "remote": 0, "executed": 0, "failed": 1, "skipped": 1}
    assert [(report.label, report.outcome, report.because) for report in second.actions] == [
        ("b", "failed", ""), ("c", "skipped", "b"),
    ]  # fmt: skip
    assert [str(reason) for reason in second.actions[0].reasons] == ["parameter-changed say: b → 2"]


def test_the_store_knows_who_builds_from_it(site: Site) -> None:
    site.build([make("a")])
    [workspace] = known.workspaces(site.store)
    assert workspace == Workspace(site.root)
    assert len(list(known.needs(site.store))) == 3


# -- the state folder --------------------------------------------------------------------------------------------------


def test_a_state_folder_that_cannot_be_written_is_a_warning(site: Site) -> None:
    (site.root / ".strata").write_text("not a folder")
    for expected in ("executed", "cached"):
        result = site.build([make("a")], places={"out": "a"})
        assert result.exit_code == 0
        assert outcomes(result) == {"a": expected}
        assert (site.root / "out").read_text() == "a"
        warnings = [event.diagnostic for event in site.heard(Warned)]
        assert warnings[0].id == "state-not-writable"
        assert {warning.severity for warning in warnings} == {"warning"}
    assert (site.root / ".strata").read_text() == "not a folder"


@pytest.mark.parametrize("name", ["history", "sources", "runs.jsonl", "lock"])
def test_a_state_file_that_cannot_be_written_is_a_warning(site: Site, name: str) -> None:
    (site.root / ".strata" / name).mkdir(parents=True)
    site.write("src", "x")
    for _ in range(2):
        result = site.build([make("a", inputs={"s": Source("src")})], places={"out": "a"})
        assert result.exit_code == 0
        assert (site.root / "out").read_text() == "a+x"
        assert {event.diagnostic.severity for event in site.heard(Warned)} == {"warning"}
    assert isinstance(site.events[-1], BuildFinished)


def test_damaged_state_is_said_and_mended(site: Site) -> None:
    items = [make("a", inputs={"s": Source("src")})]
    site.write("src", "x")
    site.build(items, places={"out": "a"})
    for path in sorted(path for path in (site.root / ".strata").iterdir() if path.is_file()):
        whole = path.read_bytes()
        for damage in (b"", b"\x80\x04garbage", whole[: len(whole) // 2]):
            path.write_bytes(damage)
            result = site.build(items, places={"out": "a"})
            assert (result.exit_code, result.counts["executed"]) == (0, 0), path.name
            if path.name == "history":
                assert [event.diagnostic.id for event in site.heard(Warned)] == ["state-damaged"]
            site.build(items, places={"out": "a"})
            assert site.heard(Warned) == []


def test_a_workspace_in_a_folder_whose_name_is_not_text(tmp_path: Path) -> None:
    site = Site(tmp_path / "caf\udce9", tmp_path / "store")
    site.write("src", "x")
    items = [make("a", inputs={"s": Source("src")})]
    assert counts(site.build(items, places={"out": "a"})) == {"executed": 1}
    assert counts(site.build(items, places={"out": "a"})) == {"up_to_date": 1}


# -- signals -----------------------------------------------------------------------------------------------------------

CHILD = """
import os, sys, time
from pathlib import Path

from builds import Site, make
from strata_engine.console.choose import open_console
from strata_engine.console.transcript import Detail
from strata_engine.tree import File, assemble

root, mode, console = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
site = Site(root)

def long(execution):
    (execution.scratch / "half").write_text("half")
    code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(1000)"
    if mode == "finish":
        code = code.replace("1000", "0.5")
    execution.command([sys.executable, "-c", code, str(root / "pid")])
    if mode == "finish":
        return File(execution.store.put(b"long"))

def deaf(execution):
    (root / "deaf").write_text(str(os.getpid()))
    time.sleep(1000)

def tree(execution):
    return assemble(execution.store, {f"f{n}": File(execution.store.put(f"{n}".encode())) for n in range(50)})

items = [make("done"), make("tree", "done", run=tree), make("long", "done", run=long), make("after", "long")]
if mode == "deaf":
    items.append(make("deaf", run=deaf))
with open_console(sys.stderr, os.environ, console=console, color="never", detail=Detail()) as shown:
    site.listeners = (shown,)
    result = site.build(items, places={"out/tree": "tree", "out/after": "after"}, jobs=3)
print(sorted((report.label, report.outcome.value, report.because) for report in result.actions))
sys.exit(result.exit_code)
"""


def child(site: Site, mode: str, console: str = "plain", **options: object) -> subprocess.Popen[bytes]:
    environ = os.environ | {"PYTHONPATH": str(SOURCES), "PYTHONUTF8": "1", "TERM": "xterm"}
    for name in ("CI", "NO_COLOR", "GITHUB_ACTIONS"):
        environ.pop(name, None)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(site.root), mode, console], env=environ, start_new_session=True, **options
    )  # type: ignore[call-overload, no-any-return] # options are Popen's


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> str:
    for _ in range(6000):
        if path.exists() and (text := path.read_text()):
            return text
        if process.poll() is not None:
            raise AssertionError(process.communicate())
        time.sleep(0.01)
    raise AssertionError(f"{path} never came")


def is_gone(pid: int) -> bool:
    for _ in range(1000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def nothing_half_written(site: Site) -> bool:
    names = [path.name for path in site.root.iterdir()] + [path.name for path in (site.root / ".strata").iterdir()]
    names += [path.name for path in (site.root / "out").iterdir()] if (site.root / "out").exists() else []
    return not list((site.store / "tmp").iterdir()) and not any(
        name.endswith(".tmp") or "-tmp-" in name for name in names
    )


def build_fine(site: Site) -> dict[str, str]:
    """Build what the child builds, to the end."""

    def tree(execution: Execution) -> Artifact:
        return assemble(execution.store, {f"f{n}": File(execution.store.put(f"{n}".encode())) for n in range(50)})

    def long(execution: Execution) -> Artifact:
        return File(execution.store.put(b"long"))

    items = [make("done"), make("tree", "done", run=tree), make("long", "done", run=long), make("after", "long")]
    result = site.build(items, places={"out/tree": "tree", "out/after": "after"})
    assert result.exit_code == 0
    assert (site.root / "out" / "after").read_text() == "after+long"
    assert len(list((site.root / "out" / "tree").iterdir())) == 50
    return outcomes(result)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_build_and_its_children_and_leaves_nothing_half_written(
    site: Site, number: signal.Signals
) -> None:
    with child(site, "long") as process:
        pid = int(wait_for(site.root / "pid", process))
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert is_gone(pid)
    assert b"Traceback" not in err
    assert b"interrupted" in err
    assert eval(out) == [
        ("after", "skipped", "interrupted"), ("done", "executed", ""), ("long", "skipped", "interrupted"),
        ("tree", "executed", ""),
    ]  # fmt: skip
    assert nothing_half_written(site)
    # Old outputs are never mixed with new ones: nothing was placed.
    assert not (site.root / "out").exists()
    [record] = run_record.read(site.root / ".strata" / "runs.jsonl")
    assert record.exit_code == 130
    assert build_fine(site) == {"done": "up_to_date", "tree": "cached", "long": "executed", "after": "executed"}


def test_the_second_signal_ends_at_once_whatever_is_deaf(site: Site) -> None:
    ours, theirs = pty.openpty()
    with child(site, "deaf", "live", stderr=theirs) as process:
        os.close(theirs)
        drawn = Drawn(ours)
        pid = int(wait_for(site.root / "pid", process))
        wait_for(site.root / "deaf", process)
        drawn.wait_for("deaf")
        process.send_signal(signal.SIGINT)
        assert is_gone(pid)
        # The deaf one keeps the build until the second signal.
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    text = drawn.end()
    assert "running" in text
    screen = Screen()
    screen.write(text.replace("\r\n", "\n"))
    assert not any("running" in line for line in screen.lines), "the terminal was given back"
    # What was made by then is not lost: the first signal has seen to it.
    assert build_fine(site)["done"] == "cached"


class Drawn:
    """Reads what is drawn on a terminal."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.data = bytearray()
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        try:
            while chunk := os.read(self.descriptor, 65536):
                self.data.extend(chunk)
        except OSError:
            pass

    def wait_for(self, text: str) -> None:
        for _ in range(3000):
            if text.encode() in self.data:
                return
            time.sleep(0.01)
        raise AssertionError(self.data)

    def end(self) -> str:
        self.thread.join(30)
        os.close(self.descriptor)
        return self.data.decode()


def test_who_does_not_listen_does_not_keep_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "GOODBYE_SECONDS", 0.05)
    heard: list[object] = []
    forever = threading.Event()

    def stopped_terminal(event: object) -> None:
        heard.append(event)
        forever.wait(60)

    build_module._say_goodbye(stopped_terminal)
    forever.set()
    assert heard == [Aborted()]


def test_a_signal_while_waiting_for_the_workspace(site: Site) -> None:
    with child(site, "long") as holder:
        wait_for(site.root / "pid", holder)
        with child(site, "long") as waiting:
            assert waiting.stderr is not None
            assert b"waiting for the workspace" in waiting.stderr.readline()
            waiting.send_signal(signal.SIGINT)
            waiting.communicate(timeout=60)
            assert waiting.returncode != 0
        assert holder.poll() is None
        holder.send_signal(signal.SIGTERM)
        holder.communicate(timeout=60)


def test_the_second_build_of_a_workspace_waits_and_says_for_whom(site: Site) -> None:
    with child(site, "finish") as first:
        wait_for(site.root / "pid", first)
        outcome = build_fine(site)
        out, _ = first.communicate(timeout=60)
    assert first.returncode == 0, out
    [waiting] = site.heard(Waiting)
    assert waiting.what == "the workspace"
    assert waiting.holder.startswith(f"process {first.pid} since ")
    assert set(outcome.values()) == {"up_to_date"}


# -- kills -------------------------------------------------------------------------------------------------------------

KILLED = """
import sys
from pathlib import Path

from test_build import graph_to_kill
from builds import Site

site = Site(Path(sys.argv[1]))
print("begun", flush=True)
site.build(graph_to_kill(), places={"out/tree": "tree", "out/end": "end", "out/m3": "mid/3"}, jobs=2)
"""


def graph_to_kill() -> list[Action | Expansion]:
    """Make a graph with small and large results, trees, sources and an expansion."""

    def big(execution: Execution) -> Artifact:
        return File(execution.store.put(execution.read("in") * 3000))

    def tree(execution: Execution) -> Artifact:
        nodes = {name: execution.node(name) for name in execution.names()}
        return assemble(execution.store, {f"d{n % 3}/{name}": node for n, (name, node) in enumerate(nodes.items())})

    def grown(text: str) -> list[Action]:
        return [make("end", *(f"mid/{n}" for n in range(8)), say=text[:5])]

    mids = [make(f"mid/{n}", f"big/{n}", say="") for n in range(8)]
    return [
        *(make(f"big/{n}", run=big, inputs={"in": Source(f"src/{n}")}) for n in range(8)), *mids,
        *(make(f"small/{n}", inputs={"in": Source(f"src/{n % 8}")}) for n in range(40)),
        make("tree", *(f"big/{n}" for n in range(8)), *(f"small/{n}" for n in range(40)), run=tree),
        Expansion(label="grow", after=(Ref("mid/0"),), promises=("end",),
                  expand=lambda read: grown(read(Ref("mid/0")).decode())),
    ]  # fmt: skip


def files_in(folder: Path) -> dict[str, bytes]:
    """Read a folder, but for what a killed process has left beside places: that is swept when it has grown old."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    return {path: data for path, data in found.items() if not path.startswith(".strata-tmp-")}


def test_killing_a_build_anywhere_leaves_nothing_that_is_wrong(tmp_path: Path) -> None:
    rng = random.Random(20261122)
    site = Site(tmp_path / "killed")
    environ = os.environ | {"PYTHONPATH": f"{SOURCES}:{SOURCES / 'engine'}"}
    places = {"out/tree": "tree", "out/end": "end", "out/m3": "mid/3"}
    labels = ["tree", "end"]
    for kill in range(5):
        for number in rng.sample(range(8), 4) if kill else range(8):
            site.write(f"src/{number}", f"{kill}-{number}")
        command = [sys.executable, "-c", KILLED, str(site.root)]
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, start_new_session=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.25))
            process.kill()
        if kill % 2:
            # Twice in a row, now and then, is no worse.
            continue
        result = site.build(graph_to_kill(), labels, places)
        assert result.exit_code == 0, result.diagnostics
        clean = Site(tmp_path / f"clean{kill}")
        shutil.copytree(site.root / "src", clean.root / "src")
        clean.build(graph_to_kill(), labels, places)
        assert files_in(site.root / "out") == files_in(clean.root / "out")
        assert site.build(graph_to_kill(), labels, places).counts["executed"] == 0
        assert {diagnostic.id for diagnostic in site.said} == set()


# -- moving about ------------------------------------------------------------------------------------------------------


def test_the_same_sources_elsewhere_are_all_hits(tmp_path: Path) -> None:
    def items() -> list[Action]:
        return [make("a", inputs={"s": Source("src"), "l": Literal(b"l")}), make("b", "a")]

    first = Site(tmp_path / "one", tmp_path / "store")
    first.write("src", "x")
    one = first.build(items(), places={"out": "b"})
    shutil.move(first.root, tmp_path / "two")
    second = Site(tmp_path / "two", tmp_path / "store")
    old = os.umask(0o077)
    try:
        two = second.build(items(), places={"out": "b"})
    finally:
        os.umask(old)
    assert two.counts["executed"] == 0
    assert [report.key for report in two.actions] == [report.key for report in one.actions]
    # Its outputs were moved along, but that they are whole is not known of the new place.
    assert (second.root / "out").read_text() == text_of(second, two, "b")
    assert second.build(items(), places={"out": "b"}).counts["up_to_date"] == 2


@pytest.fixture(autouse=True)
def _no_signal_is_left_changed() -> Iterator[None]:
    before: list[Callable[..., object] | int | None] = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_settings_have_defaults_that_build(site: Site) -> None:
    with site.opened() as build:
        assert counts(build.run(graph_of([make("a")]), ["a"])) == {"executed": 1}
    assert Settings() == Settings(jobs=0, network_jobs=16, keep_going=False)
