from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from builds import make
from conftest import Bench

from strata_engine import children
from strata_engine.action import Execution, Literal, Scope
from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic, HostError, InternalError
from strata_engine.events import ActionOutput, ActionProgress, Event
from strata_engine.executor import Executor
from strata_engine.tree import Artifact, File, Node, Symlink, Tree, entries

PYTHON = sys.executable


class Runs:
    """Runs functions as actions, and hears their events."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.events: list[Event] = []
        self.scratch = bench.folder / "tmp"
        self.executor = Executor(bench.store, self.scratch, self.events.append)

    def __call__(self, run: Callable[..., Any], inputs: dict[str, Node] | None = None, **fields: Any) -> Any:
        """Run a function; give what it put under its own name, which may be anything."""
        got: list[Any] = []

        def plain(execution: Execution) -> Artifact:
            got.append(run(execution))
            return File(execution.store.put(b"done"))

        _, self.warnings = anyio.run(self.executor.run, make("an/action", run=plain, **fields), inputs or {})
        return got[0]

    def lines(self) -> list[str]:
        return [event.line for event in self.events if isinstance(event, ActionOutput)]


@pytest.fixture
def runs(bench: Bench) -> Runs:
    return Runs(bench)


def script(text: str, *arguments: str) -> list[str]:
    return [PYTHON, "-c", text, *arguments]


def left(runs: Runs) -> list[str]:
    return [path.name for path in runs.scratch.iterdir()]


def test_a_program_is_run_to_its_end_and_heard(runs: Runs) -> None:
    code = "import sys; print('out é'); print('err', file=sys.stderr); sys.stdout.write('no end'); sys.exit(3)"
    done = runs(lambda execution: execution.command(script(code), env={"PYTHONUTF8": "1"}))
    assert done.returncode == 3
    assert done.stdout == "out é\nno end"
    assert done.stderr == "err\n"
    assert sorted(runs.lines()) == ["err", "no end", "out é"]


def test_what_it_says_may_be_any_bytes(runs: Runs) -> None:
    code = r"import os; os.write(1, b'\xff\xfe one\r\ntwo\rthree \xc3'); os.write(1, b'\xa9\n' + b'x' * 300000)"
    done = runs(lambda execution: execution.command(script(code)))
    assert done.stdout == "\ufffd\ufffd one\ntwo\nthree é\n" + "x" * 300_000
    assert runs.lines()[:3] == ["\ufffd\ufffd one", "two", "three é"]


def test_its_environment_is_what_the_action_says_and_a_fixed_minimum(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SECRET_TOKEN", "PYTHONPATH", "LC_ALL", "VIRTUAL_ENV", "UV_INDEX_URL", "http_proxy"):
        monkeypatch.setenv(name, "leaked")
    monkeypatch.setenv("PATH", "/leaked")
    seen: dict[str, str] = {}

    def run(execution: Execution) -> None:
        done = execution.command(
            script("import os, json; print(json.dumps([dict(os.environ), os.getcwd()]))"), env={"EXTRA": "2", "TZ": "X"}
        )
        environment, folder = json.loads(done.stdout)
        seen.update(environment)
        assert environment["HOME"] == environment["TMPDIR"] == folder == str(execution.scratch)

    runs(run, environment={"OWN": "1"})
    # Python itself adds this one where the locale is C.
    assert seen.keys() - {"LC_CTYPE"} == {"PATH", "HOME", "TMPDIR", "LANG", "TZ", "OWN", "EXTRA"}
    assert "leaked" not in "".join(seen.values())
    assert (seen["OWN"], seen["EXTRA"], seen["TZ"], seen["LANG"]) == ("1", "2", "X", "C.UTF-8")


def test_it_gets_no_standard_input_and_the_folder_that_is_asked_for(runs: Runs) -> None:
    def run(execution: Execution) -> tuple[str, str]:
        (execution.scratch / "in").mkdir()
        code = "import sys, os; print(repr(sys.stdin.read()), os.path.basename(os.getcwd()))"
        return execution.command(script(code), cwd=execution.scratch / "in").stdout

    assert runs(run) == "'' in\n"


def test_what_cannot_start_is_a_diagnostic(runs: Runs) -> None:
    with pytest.raises(HostError) as error:
        runs(lambda execution: execution.command(["/no/such/program", "--password=secret"]))
    [diagnostic] = error.value.diagnostics
    assert diagnostic.id == "cannot-start"
    assert diagnostic.message == "cannot start `/no/such/program`: No such file or directory"
    assert left(runs) == []


@pytest.mark.parametrize("own_session", [False, True])
def test_a_grandchild_that_keeps_the_pipes_does_not_keep_the_build(
    runs: Runs, tmp_path: Path, own_session: bool
) -> None:
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'], "
        f"start_new_session={own_session})\n"
        "print(child.pid, flush=True)"
    )
    pid = int(runs(lambda execution: execution.command(script(code))).stdout)
    try:
        if not own_session:
            # Ended with the group of its parent.
            assert not is_alive(pid)
    finally:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except (ProcessLookupError, FileNotFoundError):
            return False
        time.sleep(0.01)
    return True


def test_a_child_that_closes_its_pipes_is_still_waited_for(runs: Runs, tmp_path: Path) -> None:
    code = (
        "import os, sys, time; os.close(1); os.close(2); time.sleep(0.3); open(sys.argv[1], 'w').close(); os._exit(5)"
    )
    done = runs(lambda execution: execution.command(script(code, str(tmp_path / "late"))))
    assert done.returncode == 5
    assert (tmp_path / "late").exists()


def test_a_child_that_dies_of_a_signal(runs: Runs) -> None:
    done = runs(lambda execution: execution.command(script("import os; os.kill(os.getpid(), 9)")))
    assert done.returncode == -9


def cancelled_while(runs: Runs, run: Callable[..., Any], begun: Callable[[], bool]) -> None:
    """Start an action, cancel the build when it has begun, and see to it that the action ends."""

    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(runs.executor.run, make("an/action", run=run), {})
                while not begun():
                    await anyio.sleep(0.01)
                runs.executor.children.cancel()
                scope.cancel()

    anyio.run(main)


@pytest.mark.parametrize("stubborn", [False, True])
def test_cancelling_ends_the_whole_group(
    runs: Runs, tmp_path: Path, stubborn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "GRACE_SECONDS", 0.2)
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" if stubborn else ""
    child = f"import os, signal, sys, time; {ignore}\nopen(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(100)"
    code = f"import subprocess, sys, signal; {ignore}\nsubprocess.run([sys.executable, '-c', {child!r}, sys.argv[1]])"
    pid_file = tmp_path / "pid"
    reached: list[str] = []

    def run(execution: Execution) -> Artifact:
        execution.command(script(code, str(pid_file)))
        reached.append("after")
        return File(execution.store.put(b""))

    cancelled_while(runs, run, lambda: pid_file.exists() and pid_file.read_text() != "")
    assert not is_alive(int(pid_file.read_text()))
    assert reached == []
    assert left(runs) == []


def test_no_program_starts_once_the_build_is_being_stopped(runs: Runs, tmp_path: Path) -> None:
    runs.executor.children.cancel()

    def run(execution: Execution) -> Artifact:
        execution.command(script("import sys; open(sys.argv[1], 'w')", str(tmp_path / "ran")))
        raise AssertionError

    async def main() -> None:
        with anyio.move_on_after(0.5):
            await runs.executor.run(make("a", run=run), {})

    anyio.run(main)
    assert not (tmp_path / "ran").exists()


def test_long_loops_can_ask_whether_to_stop(runs: Runs) -> None:
    begun = threading.Event()

    def loop(execution: Execution) -> Artifact:
        begun.set()
        while True:
            execution.check_cancelled()
            time.sleep(0.001)

    cancelled_while(runs, loop, begun.is_set)

    async def coroutine(execution: Execution) -> Artifact:
        execution.check_cancelled()
        raise AssertionError

    cancelled_while(runs, coroutine, lambda: True)


def test_scratch_is_made_on_first_use_and_removed_whatever_is_in_it(runs: Runs) -> None:
    def run(execution: Execution) -> Path:
        assert left(runs) == []
        scratch = execution.scratch
        assert scratch == execution.scratch
        assert scratch.parent == runs.scratch
        assert scratch.name.startswith(f"{os.getpid()}-")
        (scratch / "d" / "e").mkdir(parents=True)
        (scratch / "d" / "e" / "f").write_text("x")
        (scratch / "d" / "e" / "f").chmod(0o400)
        (scratch / "d" / "e").chmod(0o500)
        (scratch / "d").chmod(0o500)
        return scratch

    runs(run)
    assert left(runs) == []
    with pytest.raises(ZeroDivisionError):
        runs(lambda execution: [execution.scratch, 1 / 0])
    assert left(runs) == []


def test_coroutines_run_on_the_loop_and_leave_nothing_either(runs: Runs) -> None:
    async def run(execution: Execution) -> Artifact:
        (execution.scratch / "f").write_text("x")
        await anyio.sleep(0)
        execution.warn(Diagnostic("w", "careful", severity="warning"))
        return execution.capture(execution.scratch)

    artifact, warnings = anyio.run(runs.executor.run, make("a", run=run), {})
    assert isinstance(artifact, Tree)
    assert [path for path, _ in entries(runs.bench.store, artifact)] == ["f"]
    assert [warning.id for warning in warnings] == ["w"]
    assert left(runs) == []


def test_inputs_are_found_by_name_and_staged_writable(runs: Runs) -> None:
    store = runs.bench.store
    text = File(store.put(b"text"))
    tree = runs.bench.run(make("t", run=_tree))
    inputs: dict[str, Node] = {"b/1": text, "a": text, "b/0": tree, "link": Symlink("x")}

    def run(execution: Execution) -> None:
        assert execution.names() == ["a", "b/0", "b/1", "link"]
        assert execution.names("b/") == ["b/0", "b/1"]
        assert execution.read("a") == b"text"
        assert execution.node("b/0") == tree
        assert execution.label == "an/action"
        assert execution.params["say"] == "an/action"
        execution.stage("b/0", execution.scratch / "deep" / "tree")
        execution.stage("a", execution.scratch / "file")
        (execution.scratch / "deep" / "tree" / "f").write_text("changed")
        assert (execution.scratch / "file").read_text() == "text"
        for use in (lambda: execution.read("b/0"), lambda: execution.stage("link", execution.scratch / "l")):
            with pytest.raises(InternalError):
                use()
        with pytest.raises(KeyError):
            execution.node("none")

    runs(run, inputs)
    # What an action does to what was staged never reaches the store.
    assert store.get(Digest.of(b"content")) == b"content"


def _tree(execution: Execution) -> Artifact:
    (execution.scratch / "f").write_text("content")
    return execution.capture(execution.scratch)


def test_progress_is_told_now_and_then_and_at_the_end(runs: Runs) -> None:
    def run(execution: Execution) -> None:
        for done in range(1001):
            execution.progress(done, 1000)

    runs(run)
    told = [event for event in runs.events if isinstance(event, ActionProgress)]
    assert told[0].done == 0
    assert told[-1] == ActionProgress("an/action", 1000, 1000)
    assert len(told) < 100


@pytest.mark.parametrize("output", [None, b"bytes", "text", Symlink("x"), Literal(b"x")])
def test_what_is_no_artifact_is_a_defect_of_the_rule(runs: Runs, output: object) -> None:
    with pytest.raises(InternalError, match="gave"):
        anyio.run(runs.executor.run, make("a", run=lambda execution: output), {})


@pytest.mark.parametrize("given", [b"other", None])
def test_a_fixed_output_must_be_the_one_that_was_promised(runs: Runs, given: bytes | None) -> None:
    def run(execution: Execution) -> Artifact:
        return File(execution.store.put(given)) if given is not None else _tree(execution)

    action = make("a", run=run, scope=Scope.FIXED_OUTPUT, fixed=Digest.of(b"promised").hash)
    with pytest.raises(InternalError, match="did not give the fixed output"):
        anyio.run(runs.executor.run, action, {})


def test_many_actions_at_once_are_not_limited_by_a_hidden_pool(runs: Runs) -> None:
    together = threading.Barrier(60, timeout=30)

    def run(execution: Execution) -> Artifact:
        together.wait()
        return File(execution.store.put(b""))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(runs.executor.run, make(str(number), run=run), {})

    anyio.run(main)


def test_a_line_is_told_as_its_action_shows_it_or_not_at_all(runs: Runs) -> None:
    code = "print('token=secret'); print('chatter'); print('news')"

    def show(line: str) -> str:
        return "" if line == "chatter" else line.replace("secret", "****")

    done = runs(lambda execution: execution.command(script(code), show=show))
    assert runs.lines() == ["token=****", "news"]
    assert done.stdout == "token=secret\nchatter\nnews\n"
