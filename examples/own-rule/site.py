"""A rule of one's own: poems become pages, pages become a site. Run it twice, then edit a poem and run it again.

Uses the engine alone. Each poem is an action of its own, so an edit renders one page again; the site is another, which
reads pages and not poems, so a change that leaves the page as it is (a space after the last line, say) stops there.
"""

import html
import sys
from pathlib import Path
from typing import NamedTuple

from strata_engine import (
    Action,
    Artifact,
    Execution,
    File,
    Placement,
    Ref,
    RuleContext,
    Source,
    Target,
    Workspace,
    analyze,
    assemble,
    open_build,
    plain_console,
)

HERE = Path(__file__).parent


class Page(NamedTuple):
    """What the rule of a poem provides: its page, for whoever wants to link to it."""

    title: str
    html: Ref


def poem(ctx: RuleContext) -> tuple[Page]:
    """Turn one poem into a page; the target's attribute is the file."""
    path = ctx.attrs(str)
    title = Path(path).stem.replace("-", " ").capitalize()
    label = f"{ctx.target.name}/render"
    inputs = {"poem": Source(path)}
    ctx.add(Action(label=label, mnemonic="Render", version=1, params={"title": title}, inputs=inputs, run=render))
    return (Page(title, Ref(label)),)


def render(execution: Execution) -> Artifact:
    """Execute `Render`. It is a pure function of its inputs and parameters: they are all that is in its key."""
    lines = execution.read("poem").decode().strip().splitlines()
    body = "<br>\n".join(html.escape(line.strip()) for line in lines)
    page = f"<!doctype html><title>{execution.params['title']}</title>\n<p>{body}</p>\n"
    return File(execution.store.put(page.encode()))


def site(ctx: RuleContext) -> tuple[()]:
    """Bind all pages; the rule meets those of the poems through their providers only."""
    pages = {f"pages/{page.title}.html": page.html for page in ctx.all(Page)}
    ctx.add(Action(label="site/bind", mnemonic="Bind", version=1, inputs=pages, run=bind))
    return ()


def bind(execution: Execution) -> Artifact:
    """Execute `Bind`: the pages and an index, in one folder."""
    pages = {Path(name).name: execution.node(name) for name in execution.names("pages/")}
    links = "\n".join(f'<li><a href="{name}">{Path(name).stem}</a>' for name in pages)
    index = f"<!doctype html><title>Poems</title>\n<ul>\n{links}\n</ul>\n"
    return assemble(execution.store, {**pages, "index.html": File(execution.store.put(index.encode()))})


def main() -> int:
    files = sorted((HERE / "poems").glob("*.txt"))
    poems = [Target(name=file.stem, rule=poem, attrs=f"poems/{file.name}") for file in files]
    everything = [*poems, Target(name="site", rule=site, deps=tuple(target.name for target in poems))]
    place = Placement(Ref("site/bind"), HERE / "_build" / "site")
    with plain_console(explain=True) as console, open_build(Workspace(HERE), [console]) as build:
        return build.run(analyze(everything).graph, ["site/bind"], [place]).exit_code


if __name__ == "__main__":
    sys.exit(main())
