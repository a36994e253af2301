"""Made-up builds of any size, as records, graph and trace have them: what reports are tried with."""

from __future__ import annotations

import random
from typing import Any

from strata_engine.critical import critical_path
from strata_engine.events import Outcome
from strata_engine.recorded_graph import RecordedAction
from strata_engine.report.data import Weight
from strata_engine.report.gather import Material
from strata_engine.run_record import ActionReport, RunRecord
from strata_engine.staleness import Reason, ReasonCode
from strata_engine.trace import Message, Span, Traced

RUN = "20300102T030405-abcdef"


def digest(chance: random.Random, size: int) -> str:
    return f"{chance.getrandbits(256):064x}/{size}"


def stack(layers: int, wheels: int) -> dict[str, RecordedAction]:
    """Give the graph of layers that stand on one another, with so many wheels each."""
    graph = {"python/capture": RecordedAction("Capture")}
    graph["python/install"] = RecordedAction("Install", ("python/capture",))
    graph["python/link"] = RecordedAction("Link", ("python/install",), places=("_build/python",))
    below, locks = ["python/link"], []
    for number in range(layers):
        name = f"app-{number}" if number > layers // 2 else f"framework-{number}"
        lock, install, link = f"{name}/lock", f"{name}/install", f"{name}/link"
        graph[lock] = RecordedAction("Lock", tuple(locks[-2:]), places=(f"requirements/{name}/pylock.{name}.toml",))
        unpacked = []
        for wheel in range(wheels):
            file = f"pkg{number}_{wheel}-1.{wheel}.{number}-py3-none-any.whl"
            graph[f"fetch/{file}"] = RecordedAction("Fetch", (), (lock,), pool="network")
            graph[f"wheel/{file}"] = RecordedAction("Wheel", (f"fetch/{file}",), (lock,))
            unpacked.append(f"wheel/{file}")
        graph[install] = RecordedAction("Install", tuple(unpacked), (lock,))
        graph[link] = RecordedAction(
            "Link", (install, *below[-3:]), (), (f"{name}.py",) if name.startswith("app") else (), (f"_build/{name}",)
        )
        graph[f"{name}/archive"] = RecordedAction("Archive", (link,), places=(f"_artifacts/{name}.tar.xz",))
        below.append(link)
        locks.append(lock)
    return graph


def groups(graph: dict[str, RecordedAction]) -> dict[str, str]:
    """Put wheels into the layers that install them."""
    found = {}
    for label, action in graph.items():
        if label.endswith("/install"):
            for wheel in action.needs:
                if wheel.startswith("wheel/"):
                    found[wheel] = found[wheel.replace("wheel/", "fetch/")] = label.partition("/")[0]
    return found


def built(
    layers: int = 3, wheels: int = 4, *, share: float = 1.0, seed: int = 1, workers: int = 4, first: bool | None = None
) -> Material:
    """Make up a build of which about this share was not up to date."""
    chance = random.Random(seed)
    graph = stack(layers, wheels)
    first = share >= 1 if first is None else first
    seconds = {"Capture": 6.0, "Lock": 0.9, "Fetch": 0.7, "Wheel": 0.15, "Install": 0.5, "Link": 0.3, "Archive": 3.0}
    wanted = {label for label in graph if chance.random() < share}
    changed: dict[str, ActionReport] = {}
    broken = f"framework-{layers // 2}/archive" if layers > 2 else ""
    for label, action in graph.items():
        upstream = tuple(name for name in action.needs if name in changed)
        deciders = tuple(name for name in action.deciders if name in changed)
        if label not in wanted and not (upstream and share < 1 and chance.random() < 0.9):
            continue
        outcome = (
            Outcome.CACHED if chance.random() < 0.15 and action.mnemonic in ("Wheel", "Fetch") else Outcome.EXECUTED
        )
        outcome = Outcome.FAILED if label == broken else outcome
        if any(changed[name].outcome in (Outcome.FAILED, Outcome.SKIPPED) for name in upstream):
            outcome = Outcome.SKIPPED
        changed[label] = ActionReport(
            label=label,
            mnemonic=action.mnemonic,
            key=digest(chance, 140),
            outcome=outcome,
            reasons=tuple(_reasons(chance, label, upstream, first=first)) if outcome is not Outcome.CACHED else (),
            seconds=0.0
            if outcome in (Outcome.CACHED, Outcome.SKIPPED)
            else round(seconds[action.mnemonic] * chance.lognormvariate(0, 0.9), 6),
            bytes=int(chance.lognormvariate(12, 2)),
            because=broken if outcome is Outcome.SKIPPED else "",
            previous="" if first else digest(chance, 140),
            output="" if outcome is Outcome.FAILED else digest(chance, 300),
            upstream=upstream,
            deciders=deciders,
        )
    counts = {outcome.value: 0 for outcome in Outcome}
    for report in changed.values():
        counts[report.outcome.value] += 1
    counts["up_to_date"] = len(graph) - len(changed)
    spans, end = _spans(changed, graph, workers)
    failed = [label for label, report in changed.items() if report.outcome is Outcome.FAILED]
    record = RunRecord(
        run=RUN,
        started="2030-01-02T03:04:05Z",
        seconds=end + 0.1,
        command=("build", "--publish"),
        exit_code=1 if failed else 0,
        counts=counts,
        actions=tuple(changed.values()),
        revision="4f2c" * 10,
        settings={"jobs": str(workers)},
        version="0.1.0",
        platform="linux-x86_64",
    )
    messages = tuple(
        Message(
            1.0,
            "error",
            "action-failed",
            label,
            f"error[action-failed]: `{label}` failed\nhint: try it again",
            "compressing\nno space left on device\n",
        )
        for label in failed
    )
    warned = Message(0.5, "warning", "odd", "python/link", "warning[odd]: the runtime is from this machine")
    sizes = tuple(
        Weight(
            name,
            int(chance.lognormvariate(17, 1)),
            tuple((f"pkg{number}-{at}", int(chance.lognormvariate(14, 2))) for at in range(wheels)),
            (("tar.xz", int(chance.lognormvariate(15, 1))),),
        )
        for number, name in enumerate(sorted({label.partition("/")[0] for label in graph if "/link" in label}))
    )
    return Material((record,), 0, graph, Traced(tuple(spans), (*messages, warned)), groups(graph), sizes)


def _reasons(chance: random.Random, label: str, upstream: tuple[str, ...], *, first: bool) -> list[Reason]:
    if first:
        return [Reason(ReasonCode.FIRST_BUILD, label)]
    if upstream:
        return [
            Reason(
                ReasonCode.UPSTREAM_CHANGED, name, f"{chance.getrandbits(48):012x}", f"{chance.getrandbits(48):012x}"
            )
            for name in upstream[:8]
        ]
    line = chance.choice(("numpy>=2.1", "rich", "httpx<1"))
    return [
        chance.choice(
            (
                Reason(ReasonCode.INPUT_CHANGED, f"src/{label.partition('/')[0]}.py", "8f1d2c3b4a59", "1b2a3c4d5e6f"),
                Reason(ReasonCode.PARAMETER_CHANGED, "venvstacks.toml#frameworks.0.requirements", line, f"{line}.3"),
                Reason(ReasonCode.TOOL_CHANGED, "uv", "0.11.2", "0.11.3"),
            )
        )
    ]


def _spans(
    changed: dict[str, ActionReport], graph: dict[str, RecordedAction], workers: int
) -> tuple[list[Span], float]:
    free = {"cpu": [0.0] * workers, "network": [0.0] * 8}
    ends: dict[str, float] = {}
    spans = []
    for label, report in changed.items():
        ready = max((ends.get(name, 0.0) for name in (*report.upstream, *report.deciders)), default=0.0)
        if report.outcome not in (Outcome.EXECUTED, Outcome.FAILED):
            ends[label] = ready
            continue
        pool = graph[label].pool
        slot = min(range(len(free[pool])), key=lambda at: max(free[pool][at], ready))
        start = max(free[pool][slot], ready)
        ends[label] = free[pool][slot] = start + report.seconds
        why = str(report.reasons[0]) if report.reasons else ""
        spans.append(Span(f"{pool} {slot}", label, report.mnemonic, start, report.seconds, report.outcome.value, why))
        if graph[label].places:
            spans.append(Span("placing", label, "Place", ends[label], 0.02, "placed", graph[label].places[0]))
    return spans, max(ends.values(), default=0.0)


def critical(material: Material) -> list[str]:
    """Give the critical path."""
    return critical_path(material.records[material.build].actions)


def nothing(material: Material, **fields: Any) -> Material:
    """Give the same after a build that had nothing to do."""
    idle = RunRecord(
        run="20300102T030506-fedcba",
        started="2030-01-02T03:05:06Z",
        seconds=0.01,
        command=("build",),
        exit_code=0,
        counts={"up_to_date": len(material.graph)},
        actions=(),
        **fields,
    )
    return material._replace(records=(*material.records, idle), build=len(material.records), traced=None)
