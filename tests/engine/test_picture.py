from __future__ import annotations

import json
import re

from strata_engine.picture import PictureGraph, PictureNode, document, dot, mermaid, tree

GRAPH = PictureGraph(
    nodes=(
        PictureNode("fetch/numpy.whl", "Fetch", "fetch", "cached"),
        PictureNode("py/lock", "Lock", "py"),
        PictureNode("py/install", "Install", "py", "up_to_date"),
        PictureNode('app-"<x>/link', "Link", 'app-"<x>', "executed"),
    ),
    edges=(
        ("py/lock", "py/install"),
        ("fetch/numpy.whl", "py/install"),
        ("py/install", 'app-"<x>/link'),
    ),
)


def test_tree() -> None:
    assert tree(GRAPH).splitlines() == [
        "fetch",
        "└─ Fetch  fetch/numpy.whl  (cached)",
        "py",
        "├─ Lock     py/lock",
        "└─ Install  py/install ← py/lock, fetch/numpy.whl  (up to date)",
        'app-"<x>',
        '└─ Link  app-"<x>/link ← py/install  (would run)',
    ]


def test_tree_has_what_is_needed_first() -> None:
    names = ("link", "archive", "lock", "install")
    needs = (("lock", "install"), ("install", "link"), ("link", "archive"))
    graph = PictureGraph(
        tuple(PictureNode(f"a/{name}", "X", "a") for name in names),
        tuple((f"a/{one}", f"a/{other}") for one, other in needs),
    )
    assert re.findall(r"a/(\w+)(?: ←.*)?$", tree(graph), re.MULTILINE) == ["lock", "install", "link", "archive"]


def test_tree_cuts_long_lists() -> None:
    wheels = [PictureNode(f"wheel/{n}", "Wheel", "wheel") for n in range(6)]
    last = PictureNode("a/install", "Install", "a")
    graph = PictureGraph((*wheels, last), tuple((wheel.label, last.label) for wheel in wheels))
    assert tree(graph).endswith("a/install ← wheel/0, wheel/1, wheel/2, wheel/3 and 2 more")


def test_dot() -> None:
    assert dot(GRAPH).splitlines() == [
        "digraph strata {",
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled", fillcolor=white];',
        '  subgraph cluster_0 { label="fetch";',
        '    n0 [label="fetch/numpy.whl", tooltip="Fetch", fillcolor="#cfe8ff"];',
        "  }",
        '  subgraph cluster_1 { label="py";',
        '    n1 [label="py/lock", tooltip="Lock"];',
        '    n2 [label="py/install", tooltip="Install", fillcolor="#e2e8f0"];',
        "  }",
        '  subgraph cluster_2 { label="app-\\"<x>";',
        '    n3 [label="app-\\"<x>/link", tooltip="Link", fillcolor="#c9f2cf"];',
        "  }",
        "  n1 -> n2;",
        "  n0 -> n2;",
        "  n2 -> n3;",
        "}",
    ]


def test_mermaid() -> None:
    assert mermaid(GRAPH).splitlines() == [
        "flowchart LR",
        '  subgraph g0["fetch"]',
        '    n0["fetch/numpy.whl"]:::cached',
        "  end",
        '  subgraph g1["py"]',
        '    n1["py/lock"]',
        '    n2["py/install"]:::up_to_date',
        "  end",
        '  subgraph g2["app-#quot;#lt;x#gt;"]',
        '    n3["app-#quot;#lt;x#gt;/link"]:::executed',
        "  end",
        "  n1 --> n2",
        "  n0 --> n2",
        "  n2 --> n3",
        "  classDef up_to_date fill:#e2e8f0,color:#1f2328",
        "  classDef cached fill:#cfe8ff,color:#1f2328",
        "  classDef executed fill:#c9f2cf,color:#1f2328",
    ]


def test_no_label_breaks_out_of_its_quotes() -> None:
    for text in ('a"]; n1 --> n2', "a\nend", "`**a**`", "#quot;", 'a\\"b', "end"):
        graph = PictureGraph((PictureNode(text, "M", text),), ())
        assert len(mermaid(graph).splitlines()) == 4
        quoted = re.findall(r'\["([^"]*)"\]$', mermaid(graph), re.MULTILINE)
        assert len(quoted) == 2
        unquoted = re.sub(r'"(?:\\.|[^"\\])*"', "Q", dot(graph)).splitlines()[3:]
        assert unquoted == ["  subgraph cluster_0 { label=Q;", "    n0 [label=Q, tooltip=Q];", "  }", "}"]


def test_document_is_json() -> None:
    value = json.loads(json.dumps(document(GRAPH)))
    assert value["nodes"][1] == {"label": "py/lock", "mnemonic": "Lock", "group": "py", "outcome": None}
    assert value["edges"][0] == {"from": "py/lock", "to": "py/install"}
