from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

from builds import Site, combine, make

from strata_engine.action import Execution
from strata_engine.trace import KEPT, Span, document, traces
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
