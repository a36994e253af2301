from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from builds import Site, make

from strata_engine.action import Action, Execution, Expansion, Ref, Source, SourceTree
from strata_engine.recorded_graph import RecordedAction, read_graph, read_needs
from strata_engine.tree import Artifact, File
from strata_engine.workspace import Workspace


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path / "workspace", tmp_path / "store")
    made.write("src/app.py", "1")
    made.write("names", "x y")
    return made


def first(execution: Execution) -> Artifact:
    return File(execution.store.put(execution.read("from/install")))


def items(names: str = "names") -> list[Action | Expansion]:
    """List a graph in which the words of a file decide which actions there are."""

    def expand(read: Callable[[Ref], bytes]) -> Iterable[Action]:
        words = read(Ref("lock")).decode().removeprefix("lock+").split()
        yield from (make(f"fetch/{word}") for word in words)
        yield make("install", *(f"fetch/{word}" for word in words))

    return [
        make("lock", inputs={"names": Source(names)}),
        Expansion(label="packages", after=(Ref("lock"),), promises=("install",), expand=expand),
        make("link", "install", run=first, inputs={"src": SourceTree("src")}, pool="network"),
    ]


def test_who_reads_what_who_decides_and_where_it_goes(site: Site) -> None:
    result = site.build(items(), ["link"], {"out/link": "link"})
    assert result.exit_code == 0
    assert read_graph(Workspace(site.root)) == {
        "lock": RecordedAction("Combine", sources=("names",), inputs={"names": "names"}),
        "fetch/x": RecordedAction("Combine", deciders=("lock",)),
        "fetch/y": RecordedAction("Combine", deciders=("lock",)),
        "install": RecordedAction(
            "Combine", ("fetch/x", "fetch/y"), ("lock",), inputs={"from/fetch/x": "fetch/x", "from/fetch/y": "fetch/y"}
        ),
        "link": RecordedAction(
            "Combine",
            ("install",),
            sources=("src/",),
            places=("out/link",),
            pool="network",
            inputs={"from/install": "install", "src": "src/"},
        ),
    }
    needs = read_needs(Workspace(site.root))
    assert {label: (each.needs, each.deciders) for label, each in needs.items()} == {
        label: (each.needs, each.deciders) for label, each in read_graph(Workspace(site.root)).items()
    }


def test_what_an_earlier_build_knew_below_a_promise_is_kept_and_nothing_else(site: Site) -> None:
    site.build(items(), ["link"], {"out/link": "link"})
    before = read_graph(Workspace(site.root))
    site.build(items(), ["lock"])
    assert read_graph(Workspace(site.root)) == before
    site.write("names", "y")
    site.build(items(), ["link"])
    after = read_graph(Workspace(site.root))
    assert set(before) - set(after) == {"fetch/x"}
    assert after["link"].places == ("out/link",)


def test_what_cannot_be_read_is_nothing_and_is_written_anew(site: Site) -> None:
    path = site.root / ".strata" / "graph"
    for damage in (b"", b"\x92\x01\x81\xa1x\xc0", b"\x92\x02\x80", b"{}"):
        site.build(items(), ["link"])
        path.write_bytes(damage)
        assert read_graph(Workspace(site.root)) == read_needs(Workspace(site.root)) == {}
    site.build(items(), ["link"])
    assert set(read_graph(Workspace(site.root))) == {"lock", "fetch/x", "fetch/y", "install", "link"}


def test_records_say_through_whom_a_change_came(site: Site) -> None:
    site.build(items(), ["link"])
    site.write("names", "x y z")
    result = site.build(items(), ["link"])
    reports = {report.label: report for report in result.actions}
    assert {label: (report.upstream, report.deciders) for label, report in reports.items()} == {
        "lock": ((), ()),
        "fetch/x": ((), ()),
        "fetch/y": ((), ()),
        "fetch/z": ((), ("lock",)),
        "install": (("fetch/z",), ("lock",)),
        "link": (("install",), ()),
    }
    assert all((report.output == report.former) == (report.outcome == "up_to_date") for report in reports.values())
    assert all(report.previous != report.key for label, report in reports.items() if label in ("lock", "link"))
    stages = [site.build(items(), ["link"]) for _ in range(2)]
    assert all(one.actions[0].previous == two.actions[0].key for one, two in itertools.pairwise(stages))
