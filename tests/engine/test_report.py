"""Reports: the data of a page, gathered from records, graph and trace, and the page that it is embedded in."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from typing import Any

import msgspec
import pytest
import reports
from hypothesis import given, settings
from hypothesis import strategies as st

from strata_engine.events import Outcome
from strata_engine.recorded_graph import RecordedAction
from strata_engine.report import schedule
from strata_engine.report.data import OUTCOMES, Report, Row
from strata_engine.report.gather import Material, report
from strata_engine.report.page import embedded, page
from strata_engine.run_record import ActionReport, RunRecord
from strata_engine.staleness import Reason, ReasonCode
from strata_engine.trace import Message, Span, Traced

EDIT = Reason(ReasonCode.INPUT_CHANGED, "app.py", "aa", "bb")


def did(label: str, *reasons: Reason, needs: tuple[str, ...] = (), **more: Any) -> ActionReport:
    fields = {"outcome": Outcome.EXECUTED, "seconds": 1.0, "output": "new/1", "former": "old/1"} | more
    return ActionReport(
        label=label, mnemonic="M", key=f"{label}-2", previous=f"{label}-1", reasons=reasons, upstream=needs, **fields
    )


def record(*actions: ActionReport, run: str = "r", up_to_date: int = 0, **more: Any) -> RunRecord:
    counts = {"up_to_date": up_to_date, "executed": len(actions)}
    fields = {"started": "", "seconds": 2.0, "command": ("build",), "exit_code": 0, "counts": counts} | more
    return RunRecord(run=run, actions=actions, **fields)


def upstream(label: str) -> Reason:
    return Reason(ReasonCode.UPSTREAM_CHANGED, label, "1", "2")


def rows(found: Report) -> dict[str, Row]:
    return {row.label: row for row in found.actions}


def outcomes(found: Report) -> dict[str, str]:
    return {row.label: OUTCOMES[row.outcome] for row in found.actions}


GRAPH = {
    "a/lock": RecordedAction("Lock"),
    "a/link": RecordedAction("Link", ("a/lock",), sources=("app.py",), places=("_build/a",)),
    "b/lock": RecordedAction("Lock", ("a/lock",)),
    "b/link": RecordedAction("Link", ("a/link", "b/lock")),
    "b/archive": RecordedAction("Archive", ("b/link",)),
}


# -- gathering --------------------------------------------------------------------------------------------------------


def test_actions_stand_by_layer_and_kind_and_know_each_other() -> None:
    found = report(Material([record(did("a/link", EDIT), up_to_date=4)], 0, GRAPH))
    assert found.groups == ("a", "b"), "what is needed stands above"
    assert [(row.label, found.groups[row.group], row.column) for row in found.actions] == [
        ("a/lock", "a", 0),
        ("a/link", "a", 1),
        ("b/lock", "b", 0),
        ("b/link", "b", 1),
        ("b/archive", "b", 2),
    ]
    link = rows(found)["b/link"]
    assert [found.actions[at].label for at in link.needs] == ["a/link", "b/lock"]
    assert rows(found)["a/link"].sources == ("app.py",)
    assert rows(found)["a/link"].places == ("_build/a",)


def test_kinds_that_need_one_another_stand_by_depth() -> None:
    graph = {"g/1": RecordedAction("M"), "g/2": RecordedAction("M", ("g/1",)), "g/3": RecordedAction("M", ("g/2",))}
    assert [row.column for row in report(Material([record()], 0, graph)).actions] == [0, 1, 2]


def test_a_cycle_that_some_file_claims_ends() -> None:
    graph = {"a": RecordedAction("M", ("b",)), "b": RecordedAction("M", ("a",))}
    looped = record(did("a", needs=("b",)), did("b", needs=("a",)))
    assert len(report(Material([looped], 0, graph)).actions) == 2


def test_what_the_record_does_not_have_was_up_to_date_or_not_asked_for() -> None:
    changed = did("b/link", EDIT)
    every = report(Material([record(changed, up_to_date=4)], 0, GRAPH))
    assert set(outcomes(every).values()) == {"executed", "up_to_date"}
    assert every.head.whole
    # What it needs are three: the archive was not asked for.
    some = report(Material([record(changed, up_to_date=3)], 0, GRAPH))
    assert outcomes(some) == {**outcomes(every), "b/archive": "outside"}
    nobody = report(Material([record(did("a/link", EDIT), up_to_date=2)], 0, GRAPH))
    assert outcomes(nobody)["a/lock"] == "up_to_date"
    assert outcomes(nobody)["b/lock"] == "unknown"
    assert not nobody.head.whole


def test_what_was_looked_at_since_was_up_to_date_where_as_much_was_counted() -> None:
    build = record(did("a/link", EDIT), up_to_date=2)
    for looked_at, rest in ((["a/lock", "b/lock"], "outside"), (["a/lock"], "unknown")):
        told = outcomes(report(Material([build], 0, GRAPH, looked_at=looked_at)))
        assert told["a/lock"] == "up_to_date"
        assert told["b/lock"] == ("up_to_date" if rest == "outside" else rest)
        assert told["b/archive"] == rest


def test_an_old_build_is_told_though_its_graph_is_gone() -> None:
    old = record(did("gone/link", EDIT, needs=("gone/lock",)), did("gone/lock", EDIT))
    found = report(Material([old], 0, GRAPH))
    assert outcomes(found)["gone/link"] == "executed"
    assert [found.actions[at].label for at in rows(found)["gone/link"].needs] == ["gone/lock"]
    assert "gone" in found.groups


def test_chains_lead_into_earlier_builds() -> None:
    # Somebody built the lock alone; the next build links because of it.
    builds = [
        record(did("a/lock"), did("a/link"), run="zero"),
        record(did("a/lock", EDIT, since="zero"), run="first"),
        record(did("a/link", upstream("a/lock"), since="zero"), run="second"),
    ]
    found = report(Material(builds, 2, GRAPH))
    link = rows(found)["a/link"]
    assert [(why.code, why.own) for why in link.reasons] == [("upstream-changed", False)]
    [above] = link.above
    past = found.earlier[above - len(found.actions)]
    assert (past.label, past.run) == ("a/lock", "first")
    assert [(why.subject, why.own) for why in past.reasons] == [("app.py", True)]
    assert [(cause.why.subject, cause.actions, cause.seconds) for cause in found.roots] == [("app.py", 1, 1.0)]


def test_long_reasons_are_cut_and_root_causes_come_first() -> None:
    reasons = [upstream("a/lock"), *(Reason(ReasonCode.ENV_CHANGED, f"V{n}", "x" * 9999, None) for n in range(100))]
    found = report(Material([record(did("a/lock", EDIT), did("a/link", *reasons))], 0, GRAPH))
    link = rows(found)["a/link"]
    assert all(why.own for why in link.reasons)
    assert link.more == len(reasons) - len(link.reasons)
    assert max(len(why.old or "") for why in link.reasons) < 1000


def test_sizes_of_what_was_up_to_date_are_those_of_earlier_builds() -> None:
    builds = [record(did("a/lock", EDIT, bytes=5), did("a/link", EDIT, bytes=7)), record(did("a/link", EDIT, bytes=9))]
    known = {"b/link": 3, "a/lock": 99}
    sizes = {label: row.bytes for label, row in rows(report(Material(builds, 1, GRAPH, bytes=known))).items()}
    assert sizes == {"a/lock": 5, "a/link": 9, "b/lock": 0, "b/link": 3, "b/archive": 0}


def test_a_build_that_did_nothing_says_so() -> None:
    found = report(Material([record(up_to_date=5)], 0, GRAPH))
    assert found.head.idle
    assert set(outcomes(found).values()) == {"up_to_date"}
    assert found.what_if is None
    assert "5 actions: 5 up to date" in page(found)


def test_the_timeline_names_tracks_in_order_and_actions_by_position() -> None:
    spans = (
        Span("placing", "a/link", "Place", 1.0, 0.1, "placed", ""),
        Span("cpu 10", "a/link", "Link", 0.0, 1.0, "executed", ""),
        Span("cpu 9", "other", "Link", 0.0, 1.0, "executed", ""),
    )
    messages = (Message(1.0, "warning", "odd", "a/link", "warning[odd]: x"),)
    found = report(Material([record(did("a/link", EDIT))], 0, GRAPH, Traced(spans, messages)))
    assert found.tracks == ("cpu 9", "cpu 10", "placing")
    at = [row.label for row in found.actions].index("a/link")
    assert {(span.track, span.action, span.label) for span in found.spans} == {
        (0, -1, "other"),
        (1, at, ""),
        (2, at, ""),
    }
    assert found.messages[0]["text"] == "warning[odd]: x"
    assert found.what_if is not None
    assert found.what_if.workers == {"cpu": 11}


# -- what if ----------------------------------------------------------------------------------------------------------


def work(*parts: tuple[str, float, tuple[str, ...]], pool: str = "cpu") -> schedule.Work:
    done = [did(label, seconds=seconds, needs=needs) for label, seconds, needs in parts]
    return schedule.work_of(done, {label: pool for label, _, _ in parts})


def test_workers_bound_how_long_a_build_takes() -> None:
    fan = work(
        ("a", 1.0, ()), *((f"b{n}", 2.0, ("a",)) for n in range(4)), ("c", 3.0, tuple(f"b{n}" for n in range(4)))
    )
    assert schedule.longest(fan) == 6.0
    assert schedule.played(fan, {"cpu": 1}) == 12.0
    assert schedule.played(fan, {"cpu": 2}) == 8.0
    assert schedule.played(fan, {"cpu": 4}) == schedule.played(fan, {}) == 6.0


def test_the_longest_way_goes_first_as_in_the_scheduler() -> None:
    chain = work(("short", 4.0, ()), ("head", 1.0, ()), ("tail", 6.0, ("head",)))
    assert schedule.played(chain, {"cpu": 2}) == 7.0
    assert schedule.played(chain, {"cpu": 1}) == 11.0


def test_what_a_cached_result_would_have_saved() -> None:
    beside = work(("a", 5.0, ()), ("b", 4.0, ()), ("c", 1.0, ("a", "b")))
    found = schedule.savings(beside, {"a": "X", "b": "X", "c": "Y"}, {"cpu": 1}, most=9)
    assert [(each.name, each.kind, each.takes, each.now, each.unbounded) for each in found] == [
        ("X", True, 9.0, 9.0, 5.0),
        ("a", False, 5.0, 5.0, 1.0),
        ("b", False, 4.0, 4.0, 0.0),
        ("c", False, 1.0, 1.0, 1.0),
    ]
    assert [each.now for each in schedule.savings(beside, {}, None, most=2)] == [None, None]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 9), st.sets(st.integers(0, 11))), max_size=12), st.integers(1, 4), st.integers(1, 4)
)
def test_played_builds_keep_between_their_bounds(parts: list[tuple[float, set[int]]], few: int, more: int) -> None:
    given_ = work(*((str(n), s, tuple(str(need) for need in needs if need < n)) for n, (s, needs) in enumerate(parts)))
    played = schedule.played(given_, {"cpu": few})
    total = sum(given_.seconds)
    least = max(schedule.longest(given_), total / few)
    assert least - 1e-6 <= played <= total + 1e-6
    assert schedule.longest(given_, {0}) <= schedule.longest(given_)
    assert schedule.played(given_, {}) == pytest.approx(schedule.longest(given_))


# -- the page ---------------------------------------------------------------------------------------------------------

HOSTILE = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.sampled_from(
        ["</script>", "<!--<script>", "]]>", "\u2028\u2029", "\"'&lt;", "{{data}}", "\x00\x1b[31m", "\\u003c", "${x}`"]
    ),
)


def data_of(text: str) -> Any:
    """Read a page's data as a browser does: up to the first end tag, unescaped by nobody."""
    inside = text.partition('<script id="data" type="application/json">')[2].partition("</script")[0]
    return json.loads(inside)


@settings(max_examples=80, deadline=None)
@given(st.lists(HOSTILE, min_size=6, max_size=6, unique=True))
def test_whatever_stands_in_the_data_comes_back_and_ends_nothing(texts: list[str]) -> None:
    label, subject, old, path, command, message = texts
    actions = (did(label, Reason(ReasonCode.INPUT_CHANGED, subject, old, None)),)
    graph = {label: RecordedAction(subject, (), (), (path,), (path,))}
    traced = Traced(
        (Span(path, label, subject, 0.0, 1.0, "executed", old),),
        (Message(0.0, "error", subject, label, message, old),),
    )
    found = report(Material([record(*actions, command=(command,))], 0, graph, traced, {label: path}))
    text = page(found)
    read = data_of(text)
    assert read["actions"][0][0] == label
    assert read["head"]["command"] == [command]
    assert read["messages"][0].get("text", "") == message
    assert msgspec.json.decode(embedded(found), type=Report) == found
    assert not set(embedded(found)) & set("<>&\u2028\u2029")
    plain = page(report(Material([record()], 0, {})))
    for tag in ("<script", "</script", "<style", "</style", "<!--", "<meta"):
        assert text.count(tag) == plain.count(tag), tag


def test_nothing_is_asked_of_anybody_and_nothing_else_may_run() -> None:
    text = page(report(reports.built(2, 2)))
    policy = html.unescape(re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[0])
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    for element in ("script", "style"):
        [inside] = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    outside = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg"}
    assert not outside
    assert not re.findall(r"\b(?:src|srcset|on\w+|style)=\"", text.partition('<script id="data"')[0])
    program = text.rpartition("<script>")[2]
    assert not re.findall(r"\b(?:innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|Function)\b", program)


def test_thousands_of_actions_fit() -> None:
    material = reports.built(50, 48, workers=16)
    found = report(material)
    assert len(found.actions) == 5003
    assert len(page(found).encode()) < 3_000_000
    assert found.what_if is not None
    assert found.what_if.unbounded == pytest.approx(found.head.critical)
    assert found.head.critical == pytest.approx(sum(rows(found)[label].seconds for label in reports.critical(material)))
