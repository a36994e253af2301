"""A rule of one's own: poems become pages, pages become a site. Run it twice, then edit a poem and run it again.

Uses the engine alone. Each poem is one action, so an edit renders one page again; the site is another, so a change
that leaves the pages as they are (a trailing space in a poem, say) stops there.
"""

import html
import sys
from pathlib import Path
from typing import NamedTuple

from strata_engine import (
    Action, Artifact, Execution, File, Placement, Ref, RuleContext, Source, Target, Workspace, analyze, assemble,
    open_build,
)
from strata_engine.console.choose import plain_console

HERE = Path(__file__).parent


class Page(NamedTuple):
    """What the rule of a poem provides: its page, for whoever wants to link to it."""

    title: str
    html: Ref


def render(execution: Execution) -> Artifact:
    """Execute `Render`: one poem to one page. A pure function of its inputs and parameters."""
    lines = execution.read("poem").decode().strip().splitlines()
    body = "<br>\n".join(html.escape(line.strip()) for line in lines)
    page = f"<!doctype html><title>{execution.params['title']}</title>\n<p>{body}</p>\n"
    return File(execution.store.put(page.encode()))


def bind(execution: Execution) -> Artifact:
    """Execute `Bind`: all pages and an index to one folder."""
    names = execution.names("pages/")
    links = "\n".join(f'<li><a href="{Path(name).name}">{Path(name).stem}</a>' for name in names)
    index = File(execution.store.put(f"<!doctype html><title>Poems</title>\n<ul>\n{links}\n</ul>\n".encode()))
    return assemble(execution.store, {Path(name).name: execution.node(name) for name in names} | {"index.html": index})


def poem(ctx: RuleContext) -> tuple[Page]:
    """The rule of a poem; its attribute is the file."""
    path = ctx.attrs(str)
    title = Path(path).stem.replace("-", " ").capitalize()
    label = f"{ctx.target.name}/render"
    ctx.add(Action(label=label, mnemonic="Render", version=1, params={"title": title}, inputs={"poem": Source(path)}, run=render))
    return (Page(title, Ref(label)),)


def site(ctx: RuleContext) -> tuple[()]:
    """The rule of the site: it meets the poems through their `Page` providers only."""
    pages = {f"pages/{page.title}.html": page.html for page in ctx.all(Page)}
    ctx.add(Action(label="site/bind", mnemonic="Bind", version=1, inputs=pages, run=bind))
    return ()


def main() -> int:
    poems = [
        Target(name=path.stem, rule=poem, attrs=f"poems/{path.name}") for path in sorted((HERE / "poems").glob("*.txt"))
    ]
    targets = [*poems, Target(name="site", rule=site, deps=tuple(target.name for target in poems))]
    with open_build(Workspace(HERE), listeners=[plain_console(explain=True)]) as build:
        result = build.run(analyze(targets).graph, ["site/bind"], [Placement(Ref("site/bind"), HERE / "_build" / "site")])
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
