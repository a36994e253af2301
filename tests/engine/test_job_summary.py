"""Job summaries: what they say, and that nothing from outside becomes markup."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from strata_engine.errors import Diagnostic, Place
from strata_engine.events import Outcome
from strata_engine.job_summary import MOST_DRAWN, MOST_ROWS, markdown
from strata_engine.recorded_graph import RecordedAction
from strata_engine.run_record import ActionReport, RunRecord
from strata_engine.staleness import Reason, ReasonCode
from strata_engine.why import Root

PIN = Reason(ReasonCode.PARAMETER_CHANGED, "venvstacks.toml#frameworks.up.requirements", "alpha>=1", "alpha>=2")


def report(label: str, **more: Any) -> ActionReport:
    fields = {"mnemonic": "M", "key": "", "outcome": Outcome.EXECUTED, "seconds": 1.5, "bytes": 2048} | more
    return ActionReport(label=label, **fields)


def record(*reports: ActionReport, exit_code: int = 0) -> RunRecord:
    counts = {"up_to_date": 3, "executed": len(reports)}
    return RunRecord(
        run="r", started="", seconds=4.2, command=("build", "--locked"), exit_code=exit_code, counts=counts,
        actions=reports,
    )  # fmt: skip


def test_a_summary_from_the_outcome_to_the_picture() -> None:
    build = record(
        report("framework-up/lock", reasons=(PIN,), seconds=2.0),
        report("framework-up/link", reasons=(Reason(ReasonCode.UPSTREAM_CHANGED, "framework-up/lock", "a", "b"),)),
        report("app-web/link", outcome=Outcome.CACHED),
    )
    graph = {
        "framework-up/link": RecordedAction("Link", ("framework-up/lock",)),
        "app-web/link": RecordedAction("Link", ("framework-up/link", "python/link")),
    }
    roots = [Root(PIN, ("framework-up/lock",), 2, 3.5)]
    assert markdown(build, roots, ["framework-up/lock"], graph, []).splitlines() == [
        "### ✅ strata build --locked",
        "",
        "6 actions: 3 up to date, 3 executed in 4.2 s",
        "",
        "| root cause | old | new | actions | time |",
        "|---|---|---|--:|--:|",
        r"| parameter-changed venvstacks.toml\#frameworks.up.requirements | alpha>=1 | alpha>=2 | 2 | 3.5 s |",
        "",
        "<details><summary>What ran, the slowest first</summary>",
        "",
        "| action | outcome | time | size | why |",
        "|---|---|--:|--:|---|",
        r"| **framework-up/lock** | executed | 2.0 s | 2.0 kB | parameter-changed"
        r" venvstacks.toml\#frameworks.up.requirements: alpha>=1 → alpha>=2 |",
        "| framework-up/link | executed | 1.5 s | 2.0 kB | upstream-changed framework-up/lock: a → b |",
        "",
        "Bold is the critical path.",
        "",
        "</details>",
        "",
        "```mermaid",
        "flowchart LR",
        '  subgraph g0["app-web"]',
        '    n0["app-web/link"]:::cached',
        "  end",
        '  subgraph g1["framework-up"]',
        '    n1["framework-up/link"]:::executed',
        '    n2["framework-up/lock"]:::executed',
        "  end",
        "  n1 --> n0",
        "  n2 --> n1",
        "  classDef cached fill:#cfe8ff,color:#1f2328",
        "  classDef executed fill:#c9f2cf,color:#1f2328",
        "```",
    ]


def test_failures_come_first_with_their_places_and_hints() -> None:
    place = Place("venvstacks.toml", 7, 3)
    wrong = Diagnostic("no-wheel", "`alpha` has no wheel for `win_amd64`", place, ("locked 1.0",), "narrow `platforms`")
    lines = markdown(record(report("a/lock", outcome=Outcome.FAILED), exit_code=1), [], [], {}, [wrong]).splitlines()
    assert lines[0].startswith("### ❌")
    assert lines[4:7] == [
        "- **error** `venvstacks.toml:7` `alpha` has no wheel for `win_amd64`",
        "  - locked 1.0",
        r"  - hint: narrow `platforms`",
    ]


def test_a_large_build_is_told_in_part_and_not_drawn() -> None:
    reports = [report(f"a/{number}", reasons=(PIN,)) for number in range(MOST_DRAWN + 1)]
    roots = [Root(Reason(ReasonCode.FORCED, str(number)), ("a/1",), 1, 1.0) for number in range(MOST_ROWS + 5)]
    text = markdown(record(*reports), roots, [], {}, [])
    assert "mermaid" not in text
    assert "and 5 more" in text
    assert f"{MOST_DRAWN + 1 - MOST_ROWS} more ran." in text
    assert len(text.splitlines()) < 130


def test_a_build_with_nothing_to_do_is_one_line() -> None:
    assert markdown(record(), [], [], {}, []) == "### ✅ strata build --locked\n\n3 actions: 3 up to date in 4.2 s\n"
    told = msgspec.structs.replace(record(), remote="remote: 41.0 MB read, 3 hits, saved ~38 s")
    assert markdown(told, [], [], {}, []).endswith(" in 4.2 s\n\nremote: 41.0 MB read, 3 hits, saved \\~38 s\n")


@given(st.text(alphabet="`*_[]()<>|#&~!\n\r\"'ab\x1b;", max_size=40))
def test_nothing_from_outside_becomes_markup(hostile: str) -> None:
    reason = Reason(ReasonCode.INPUT_CHANGED, hostile, hostile, hostile)
    build = record(report(hostile, reasons=(reason,)))
    told = Diagnostic("x", hostile, Place(hostile, 1), (hostile,), hostile)
    text = markdown(build, [Root(reason, (hostile,), 1, 1.0)], [], {}, [told])
    assert text.count("```") == 2, "the picture is the only block"
    assert text.index("```mermaid") > text.index("</details>")
    # The picture is no Markdown, and quotes its labels itself.
    for line in re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines():
        code = re.sub(r"`[^`]*`", "", line)
        assert not re.search(r"(?<!\\)\]\(", code) or "](" not in code
        if line.startswith("| ") and "```" not in line:
            assert len(re.findall(r"(?<!\\)\|", line)) == 6
    assert set(re.findall(r"<[^>]*>", re.sub(r"`[^`]*`|```.*?```", "", text, flags=re.DOTALL))) <= {
        "<details>", "<summary>", "</summary>", "</details>",
    }  # fmt: skip
