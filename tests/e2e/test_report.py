"""Traces and reports: what the commands write, and the page as a browser shows it and as keys and a mouse use it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import reports
from browser import Browser, Page, opened, program
from refusals import refused
from space import Space

from strata_engine.report.gather import report
from strata_engine.report.page import page as page_of
from strata_engine.staleness import Reason, ReasonCode
from strata_engine.trace import Message, Traced

EDITED = "import alpha, gamma\nprint('hello again', alpha.NAME, gamma.NAME)\n"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if program() is None:
        pytest.skip("there is no Chromium here; on Debian: apt install chromium")
    with opened(tmp_path_factory.mktemp("chromium")) as found:
        yield found


def runs(space: Space) -> list[dict[str, Any]]:
    return [json.loads(line) for line in space.read(".strata/runs.jsonl").splitlines()]


def data_of(path: Path) -> Any:
    inside = path.read_text().partition('<script id="data" type="application/json">')[2].partition("</script")[0]
    return json.loads(inside)


def outcomes(path: Path) -> dict[str, str]:
    data = data_of(path)
    return {row[0]: data["outcomes"][row[3]] for row in data["actions"]}


# -- the commands -----------------------------------------------------------------------------------------------------


def test_traces_are_found_by_build(built: Space, tmp_path: Path) -> None:
    space = built
    first = space.ok("graph", "trace").stdout.strip()
    space.write("hello.py", EDITED)
    space.build("app-hello")
    path = Path(space.ok("graph", "trace").stdout.strip())
    assert str(path) != first
    run = json.loads(path.read_bytes())["otherData"]["run"]
    assert run == runs(space)[-1]["run"] == path.stem
    assert space.ok("graph", "trace", "last").stdout.strip() == str(path)
    assert space.ok("graph", "trace", "last~1", "-o", str(tmp_path / "t.json")).stdout == ""
    assert (tmp_path / "t.json").read_bytes() == Path(first).read_bytes()
    assert space.ok("graph", "trace", run[:-2], "--json").json["run"] == run
    assert json.loads(space.ok("graph", "trace", "-o", "-").stdout)["otherData"]["run"] == run
    listed = space.ok("graph", "trace", "--list").stdout.splitlines()
    assert listed[0].startswith(f"{run}  ")
    assert listed[0].endswith("strata build --json app-hello")
    assert len(space.ok("graph", "trace", "--list", "--json").json["traces"]) == len(listed)
    # The next one has nothing to do, and leaves no trace.
    space.build("app-hello")
    said = refused(space, "graph", "trace", "last", code=2)
    assert said.startswith("error[no-trace]: there is no trace of the build")
    wrong = run[:3] + "9" + run[4:]
    assert f"hint: did you mean `{run}`?" in refused(space, "graph", "trace", wrong, code=2)


def test_nothing_to_tell_is_said(space: Space) -> None:
    assert "error[no-traces]: no build here has left a trace" in refused(space, "graph", "trace", code=2)
    assert "error[no-history]: no build has been recorded here" in refused(space, "graph", "report", code=2)


def test_a_report_tells_of_the_build_and_all_that_is_known_of_it(built: Space) -> None:
    space = built
    space.write("hello.py", EDITED)
    space.build()
    space.build()
    place = Path(space.ok("graph", "report").stdout.strip())
    assert place.parent == space.root / ".strata" / "reports"
    data = data_of(place)
    assert data["head"]["command"] == ["build", "--json"], "the last one that did anything"
    assert not data["head"]["idle"]
    assert {label for label, outcome in outcomes(place).items() if outcome == "executed"} == {"app-hello/link"}
    assert outcomes(place)["framework-low/install"] == "up_to_date"
    assert [cause[0][1] for cause in data["roots"]] == ["hello.py"]
    weights = {group: (size, parts) for group, size, parts, _ in data["weights"]}
    assert set(weights) == {"python", "framework-low", "framework-up", "app-hello", "app-world"}
    assert [name for name, _ in weights["framework-low"][1]] == ["alpha 1.0", "beta 1.0"]
    assert weights["python"][0] > weights["framework-low"][0] > 0
    groups = {row[0]: data["groups"][row[2]] for row in data["actions"]}
    assert groups["wheel/beta-1.0-py3-none-any.whl"] == "framework-low"
    said = space.ok("graph", "report", "last", "--json", "-o", "idle.html").json
    assert said["path"] == "idle.html"
    assert data_of(space.root / "idle.html")["head"]["idle"]


def test_a_report_of_an_old_build_outlives_its_graph(built: Space) -> None:
    space = built
    space.replace("venvstacks.toml", 'name = "world"', 'name = "globe"')
    space.write("globe/__init__.py", "")
    space.replace("venvstacks.toml", 'launch_module = "world"', 'launch_module = "hello.py"')
    space.ok("build")
    (space.root / ".strata" / "graph").unlink()
    space.ok("graph", "report", runs(space)[-2]["run"], "-o", "old.html")
    assert outcomes(space.root / "old.html")["app-world/link"] in ("executed", "cached")


def test_what_failed_is_told_with_what_it_said(built: Space) -> None:
    space = built
    space.replace("venvstacks.toml", 'requirements = ["zeta"]', 'requirements = ["zeta", "nowhere"]')
    assert space.strata("build").code == 2
    space.ok("graph", "report", "-o", "failed.html")
    data = data_of(space.root / "failed.html")
    assert outcomes(space.root / "failed.html")["app-world/lock"] == "failed"
    [message] = [each for each in data["messages"] if each["severity"] == "error"]
    assert message["label"] == "app-world/lock"
    assert "nowhere" in message["text"] + message.get("output", "")


# -- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    small = reports.built(1, 2)
    made = {
        "small": small,
        "middle": reports.built(7, 6, share=0.12, seed=3),
        "large": reports.built(50, 48, workers=16),
        "idle": reports.nothing(small),
    }
    for name, material in made.items():
        (folder / f"{name}.html").write_text(page_of(report(material)))
    return {name: folder / f"{name}.html" for name in made}


@pytest.fixture
def middle(browser: Browser, pages: dict[str, Path]) -> Iterator[Page]:
    page = browser.page(pages["middle"])
    yield page
    assert page.complaints() == []
    page.close()


def node(label: str) -> str:
    return f".node[aria-label^={json.dumps(label + ',')}]"


def focused(page: Page) -> str:
    found: str = page.run("document.activeElement.getAttribute('aria-label') ?? document.activeElement.id")
    return found


def test_a_real_build_in_a_real_browser(built: Space, browser: Browser) -> None:
    space = built
    space.write("hello.py", EDITED)
    space.build()
    page = browser.page(Path(space.ok("graph", "report").stdout.strip()))
    page.click(node("app-hello/link"))
    why = page.text("#details")
    assert "An input changed hello.py" in why.replace("\n", " ")
    assert "before:" in why
    assert "now:" in why
    assert "root cause" in why
    assert "framework-up/link" in why
    assert page.complaints() == []
    page.close()


def test_an_action_is_chosen_with_the_mouse_and_tells_its_way_to_the_causes(middle: Page) -> None:
    middle.click(node("app-5/archive"))
    assert middle.text("#details h2") == "app-5/archive"
    text = middle.text("#details")
    assert "The output of another action changed" in text
    assert "How that came about" in text
    assert middle.run("document.querySelectorAll('.node.chosen').length") == 1
    middle.click("#details .chain .link")
    assert middle.text("#details h2") == "app-5/link"
    assert focused(middle) == "details-title", "whoever works with keys goes on where the text changed"
    middle.press("Escape")
    assert "Choose an action" in middle.text("#details")
    assert focused(middle).startswith("app-5/link,")


def test_the_graph_is_gone_about_in_with_keys(middle: Page) -> None:
    middle.press("g")
    first = focused(middle)
    assert ", executed in" in first
    middle.press("ArrowRight")
    second = focused(middle)
    assert second != first
    middle.press("ArrowLeft")
    assert focused(middle) == first
    middle.press("ArrowDown")
    assert focused(middle) not in (first, second)
    middle.press("End", "Home")
    assert focused(middle) == first
    middle.press("Enter")
    label = first.split(",")[0]
    assert middle.text("#details h2") == label
    assert focused(middle) == first, "so that arrows go on"
    middle.press("Enter")
    assert focused(middle) == "details-title"
    assert middle.run("document.querySelectorAll('.node[tabindex=\"0\"]').length") == 1
    outline = middle.run("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_layers_are_folded_and_unfolded(middle: Page) -> None:
    assert middle.run(f"document.querySelector('{node('app-5/link')}') !== null")
    middle.click(".lane[aria-label^='app-5'] .fold")
    assert middle.run(f"document.querySelector('{node('app-5/link')}') === null")
    assert "executed" in middle.text(".lane.is-folded")
    assert middle.run("document.activeElement.getAttribute('aria-expanded')") == "false"
    middle.press("Enter")
    assert middle.run(f"document.querySelector('{node('app-5/link')}') !== null")
    shown = middle.run("document.querySelectorAll('.node').length")
    middle.click(".switch button")
    assert shown < middle.run("document.querySelectorAll('.node').length") == 115


def test_search_dims_filters_and_goes_there(middle: Page) -> None:
    middle.press("/")
    assert focused(middle).startswith("Search actions")
    middle.type("app-5 archive executed")
    assert middle.text("#found") == "1 found"
    assert middle.run("document.querySelectorAll('.node:not(.dim)').length") == 1
    assert middle.run("document.querySelectorAll('#actions tbody tr').length") == 1
    middle.press("Enter")
    assert middle.text("#details h2") == "app-5/archive"
    assert focused(middle).startswith("app-5/archive,")
    middle.press("Escape", "Escape")
    assert middle.run("document.querySelectorAll('.node.dim').length") == 0
    middle.press("/")
    middle.type("previous-failed")
    assert middle.text("#found") == "0 found"
    middle.press("Escape", "Escape")
    assert middle.text("#found") == ""


def test_the_timeline_is_gone_about_in_with_keys_and_mouse(middle: Page) -> None:
    middle.press("t")
    assert "Timeline" in focused(middle)
    middle.press("ArrowRight", "ArrowRight", "Enter")
    chosen = middle.text("#details h2")
    assert "on the critical path" in middle.text("#details")
    middle.press("ArrowDown", "Enter")
    middle.press("+", "+", "-", "0")
    box = middle.run(
        "(() => { const b = document.querySelector('canvas').getBoundingClientRect(); return [b.x, b.y, b.width]; })()"
    )
    # The last on the critical path takes most of it.
    middle.mouse(box[0] + box[2] * 0.9, box[1] + 24 + 12)
    assert middle.text("#details h2") == "framework-3/archive" != chosen
    drawn = middle.run(
        "(() => { const c = document.querySelector('canvas'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; const s = new Set();"
        " for (let i = 0; i < d.length; i += 4) s.add(d.slice(i, i + 4).join()); return s.size; })()"
    )
    assert drawn > 5


def test_keys_are_listed_and_the_theme_is_switched(middle: Page) -> None:
    middle.press("?", shift=True)
    assert "search" in middle.text("#keys")
    assert middle.run("document.querySelector('#keys').open")
    middle.press("Escape")
    assert not middle.run("document.querySelector('#keys').open")
    background = "getComputedStyle(document.body).backgroundColor"
    light = middle.run(background)
    middle.dark(True)
    dark = middle.run(background)
    assert dark != light, "as the system has it"
    middle.press("d")
    assert middle.run(background) == light
    assert middle.text("#theme") == "Theme: light"
    middle.press("d")
    assert middle.run(background) == dark
    middle.dark(False)
    assert middle.run(background) == dark
    middle.press("d")
    assert middle.run(background) == light


def test_what_is_told_in_numbers(middle: Page) -> None:
    assert "115 actions" in middle.text("#outcome")
    assert "15 %" in middle.text("#outcome"), "5 of 33 from the cache"
    assert "infinite workers" in middle.text("#whatif")
    assert "every Archive" in middle.text("#whatif")
    assert "no space left on device" not in middle.text("#messages")
    middle.click("#messages details summary")
    assert "no space left on device" in middle.text("#messages")
    middle.click("#sizes details summary")
    assert "pkg4-1" in middle.text("#sizes")
    middle.click("#actions th[data-by='label'] button")
    assert middle.run("document.querySelector('th[data-by=label]').getAttribute('aria-sort')") == "ascending"
    assert middle.text("#actions tbody tr td:nth-child(2)") == "app-4/archive"
    shown = middle.run("document.querySelectorAll('#actions tbody tr').length")
    middle.click("#actions p .more")
    assert shown < middle.run("document.querySelectorAll('#actions tbody tr').length") == 115


@pytest.mark.parametrize(("width", "scale"), [(360, 1.0), (820, 1.0), (1280, 2.0), (1600, 1.0)])
def test_it_fits_any_width(browser: Browser, pages: dict[str, Path], width: int, scale: float) -> None:
    page = browser.page(pages["middle"])
    page.size(width, 900, scale=scale)
    page.wait(f"innerWidth === {int(width / scale)}")
    page.click(node("app-5/archive"))
    assert page.text("#details h2") == "app-5/archive"
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    visible = page.run(
        "(() => { const b = document.querySelector('#details').getBoundingClientRect();"
        " return b.width > 250 && b.left >= 0 && b.right <= innerWidth && b.top < innerHeight; })()"
    )
    assert visible
    assert page.complaints() == []
    page.close()


def test_a_small_build_and_one_with_nothing_to_do(browser: Browser, pages: dict[str, Path]) -> None:
    page = browser.page(pages["idle"])
    assert "Nothing had to be done: 11 actions were up to date." in page.text("#outcome")
    assert page.run("document.querySelectorAll('.node.o-up_to_date').length") == 11
    page.click(node("python/link"))
    assert "Nothing that it depends on has changed" in page.text("#details")
    assert page.complaints() == []
    page.close()
    page = browser.page(pages["small"], dark=True)
    assert page.run("document.querySelectorAll('.node').length") == 11
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.run(background)
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run(background) != dark, "paper is light"
    assert page.run("parseInt(document.querySelector('.plane').style.width)") <= 720, "and narrow"
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run(background) == dark
    assert len(page.call("Page.printToPDF")["data"]) > 20_000
    assert page.complaints() == []
    page.close()


def test_thousands_of_actions_are_as_easy(browser: Browser, pages: dict[str, Path]) -> None:
    page = browser.page(pages["large"])
    assert page.run("document.querySelectorAll('.node').length") == 5003
    page.press("/")
    page.type("pkg42_17 wheel")
    assert page.text("#found") == "1 found"
    page.press("Enter")
    assert page.text("#details h2").startswith("wheel/pkg42_17-")
    assert page.run(
        "(() => { const b = document.activeElement.getBoundingClientRect();"
        " return b.top > 0 && b.bottom < innerHeight && document.activeElement.dataset.i !== undefined; })()"
    )
    page.press("Escape", "Escape", "ArrowRight", "ArrowDown", "Enter")
    assert page.text("#details h2") != ""
    # What is out of sight is not laid out.
    assert page.run("getComputedStyle(document.querySelector('.lane')).contentVisibility") == "auto"
    page.press("t", "ArrowDown", "+", "+", "ArrowRight", "Enter")
    assert page.complaints() == []
    page.close()


def test_hostile_text_is_text(browser: Browser, tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=alert(1)><b id=evil>\u2028'\"&lt;"
    material = reports.built(1, 2)
    [record] = material.records
    graph = {evil if label == "framework-0/archive" else label: action for label, action in material.graph.items()}
    actions = tuple(
        type(each)(
            **{name: getattr(each, name) for name in each.__struct_fields__ if name not in ("label", "reasons")},
            label=evil if each.label == "framework-0/archive" else each.label,
            reasons=(Reason(ReasonCode.INPUT_CHANGED, evil, evil, evil),),
        )
        for each in record.actions
    )
    record = type(record)(
        **{name: getattr(record, name) for name in record.__struct_fields__ if name not in ("actions", "command")},
        actions=actions,
        command=(evil,),
    )
    traced = Traced((), (Message(0.0, "error", evil, evil, evil, evil),))
    groups = dict.fromkeys(graph, evil)
    (tmp_path / "evil.html").write_text(
        page_of(report(material._replace(records=(record,), graph=graph, traced=traced, groups=groups)))
    )
    page = browser.page(tmp_path / "evil.html")
    page.click(f".node[data-i='{len(graph) - 1}']")
    page.click("#messages summary")
    assert page.run("document.querySelector('#evil') === null && document.images.length === 0")
    assert "<b id=evil>" in page.text("#outcome-title")
    assert "<b id=evil>" in page.text("#details")
    assert page.complaints() == []
    # Neither could it, were it put there as markup.
    assert page.run(
        "(() => { try { document.body.innerHTML = '<b>'; return false; } catch (error) { return true; } })()"
    )
    page.close()
