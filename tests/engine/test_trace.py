from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
from builds import Site, combine, make

from strata_engine.action import Execution
from strata_engine.errors import ActionError, Diagnostic
from strata_engine.events import Fetched
from strata_engine.trace import CRITICAL, KEPT, KEPT_OUTPUT, Message, Recorder, Span, document, read, runs, traces
from strata_engine.tree import Artifact


def slow(execution: Execution) -> Artifact:
    time.sleep(0.03)
    return combine(execution)


def newest(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(traces(site.root / ".strata")[0].read_bytes())
    return found


def rows(trace: dict[str, Any]) -> dict[int, str]:
    return {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}


def complete(trace: dict[str, Any]) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event["ph"] == "X"]


def test_every_build_that_did_anything_is_traced(tmp_path: Path) -> None:
    site = Site(tmp_path / "w")
    chain = [make("a", run=slow), make("b", "a", run=slow), make("c", "b", run=slow)]
    beside = [make(f"x{n}", run=slow) for n in range(4)]
    result = site.build([*chain, *beside], None, {"out": "c"}, jobs=2)
    trace = newest(site)
    assert trace["otherData"] == {"run": result.run}
    names = rows(trace)
    on = {event["name"]: names[event["tid"]] for event in complete(trace) if names[event["tid"]] != "critical path"}
    assert set(on.values()) == {"cpu 0", "cpu 1", "placing"}
    critical = [event["name"] for event in complete(trace) if names[event["tid"]] == "critical path"]
    assert critical == ["a", "b", "c"]
    one = next(event for event in complete(trace) if event["name"] == "b")
    assert one["args"] == {"outcome": "executed", "why": "first-build b"}
    assert one["dur"] >= 30_000
    site.build([*chain, *beside], None, {"out": "c"})
    assert newest(site)["otherData"] == {"run": result.run}, "nothing ran"


def test_what_came_from_remotes_has_tracks_of_its_own() -> None:
    recorder = Recorder()
    for label, seconds in (("a", 0.5), ("b", 0.4), ("c", 0.0)):
        recorder(Fetched(label, 10, seconds))
    assert [span.track for span in recorder.spans] == ["from remote 0", "from remote 1", "from remote 0"]
    assert not any(map(runs, recorder.spans))
    trace = json.loads(document("run", recorder.spans, ["a"]))
    assert set(rows(trace).values()) == {"critical path", "from remote 0", "from remote 1"}
    assert len(complete(trace)) == 3, "none of them is on the critical path"


def test_tools_can_draw_it(tmp_path: Path) -> None:
    # Complete events on one track must not overlap.
    site = Site(tmp_path / "w")
    site.build(
        [make(str(n), *([str(n - 1)] if n % 3 else []), run=slow if n % 4 else combine) for n in range(24)], jobs=3
    )
    trace = newest(site)
    for track in rows(trace):
        spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in complete(trace) if e["tid"] == track)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    counts = [event["args"]["actions"] for event in trace["traceEvents"] if event["ph"] == "C"]
    assert counts[-1] == 0
    assert 1 <= max(counts) <= 3


def test_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    site = Site(tmp_path / "w")
    folder = site.root / ".strata" / "traces"
    folder.mkdir(parents=True)
    for number in range(KEPT + 3):
        (folder / f"20200101T0000{number:02}-000000.json").write_text("{}")
    run = site.build([make("a")]).run
    kept = [path.stem for path in traces(site.root / ".strata")]
    assert kept[0] == run
    assert len(kept) == KEPT
    assert kept[-1].startswith("20200101T000004")


def test_labels_are_text_whatever_they_are() -> None:
    span = Span("cpu 0", 'a"</script>\n', "M", 0.5, 0.25, "executed", "")
    [event] = complete(json.loads(document("r", [span], [])))
    assert (event["name"], event["ts"], event["dur"]) == (span.label, 500_000, 250_000)


def test_what_was_written_is_read_back() -> None:
    spans = (
        Span("cpu 0", "a</script>", "M", 0.5, 0.25, "executed", "why"),
        Span("placing", "b", "Place", 1, 0, "", ""),
    )
    messages = (Message(0.75, "error", "action-failed", "a", "error[action-failed]: no", "printed\u2028"),)
    traced = read(document("r", spans, ["a</script>"], messages))
    assert traced.spans == spans
    assert traced.messages == messages
    assert CRITICAL not in {span.track for span in traced.spans}


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"traceEvents": [{"name": 1}]}', b"\xff"])
def test_what_is_no_trace_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        read(data)


def test_warnings_and_failures_are_told_with_what_was_printed(tmp_path: Path) -> None:
    def warning(execution: Execution) -> Artifact:
        execution.warn(Diagnostic("odd", "this is odd", severity="warning"))
        return combine(execution)

    def failing(execution: Execution) -> Artifact:
        raise ActionError(Diagnostic("broken", "it broke", hint="mend it"), output="x" * KEPT_OUTPUT + "the end")

    site = Site(tmp_path / "w")
    actions = [make("a", run=warning), make("b", "a", run=failing)]
    site.build(actions)
    messages = read(traces(site.root / ".strata")[0].read_bytes()).messages
    assert [(m.severity, m.id, m.label) for m in messages] == [("warning", "odd", "a"), ("error", "broken", "b")]
    assert messages[1].text == "error[broken]: it broke\nhint: mend it"
    assert messages[1].output.endswith("xthe end")
    assert len(messages[1].output) == KEPT_OUTPUT
    site.build([actions[0]])
    assert len(traces(site.root / ".strata")) == 1, "what was up to date warned again, and nothing else happened"
