"""Questions on a command line: which arguments are queries, which stacks they are about, and their answers.

It ties the query language to opened stacks: one, in a session, or several, in a repository.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from strata_engine import run_record
from strata_engine.compose import Composition, Member
from strata_engine.picture import PictureGraph, PictureNode
from strata_engine.query import evaluate, words
from strata_engine.query import parse as parse_query
from strata_engine.records import Records
from strata_engine.workspace import Workspace
from strata_rules.repository.labels import BELOW, MARK, Pattern, is_query, parse, state_of
from strata_rules.repository.opened import Planned, Repository, Whole, compose, shares
from strata_rules.repository.runs import Full, Runs
from strata_rules.repository.which import stack_file
from strata_rules.repository.world import Asked, StackWorld
from strata_rules.session import Session

_ENDS = ("Archive", "Link")
"""What a stack is built for."""


def patterns(arguments: Iterable[str]) -> list[Pattern]:
    """List what arguments, labels and queries, say of stack files. Raises SpecError."""
    found = []
    for argument in arguments:
        if is_query(argument):
            found += [parse(word) for word in words(parse_query(argument)) if word.startswith(MARK)]
        else:
            found.append(parse(argument))
    return found


def answer(world: StackWorld, argument: str) -> list[str]:
    """Give the labels that a query means, in byte order. Raises SpecError."""
    return sorted(evaluate(parse_query(argument), world, argument))


def below(world: StackWorld, arguments: Iterable[str]) -> list[str]:
    """Give what labels mean and all that it needs; of whole stacks, what is built and published of them."""
    found: set[str] = set()
    for argument in arguments:
        if is_query(argument):
            found.update(answer(world, argument))
            continue
        matching = world.match(argument)
        whole = argument.startswith(MARK) and parse(argument).local == BELOW
        found |= {label for label in matching if not whole or world.mnemonic(label) in _ENDS}
    return sorted(world.relations().below(found))


def drawn(world: StackWorld, labels: Sequence[str]) -> PictureGraph:
    """Give a picture of actions."""
    nodes = [PictureNode(label, world.mnemonic(label), world.group(label), world.outcome(label)) for label in labels]
    known = set(labels)
    return PictureGraph(tuple(nodes), tuple(edge for edge in world.edges() if known.issuperset(edge)))


def world_of_stack(session: Session) -> StackWorld:
    """Give what can be asked of one stack. Raises StrataError."""
    plan, build = session.plan_by_now(), session.opened
    root = build.workspace.root
    composition = Composition([Member("", plan.analysis.graph, root)], shares)
    placements = session.places(plan, composition.graph.labels())
    asked = Asked("", plan, session.stack.path.name)

    def runs() -> Runs:
        return Runs({_known(composition, [""]): _records(build.workspace)})

    return StackWorld([asked], composition, build, placements, runs, root=root)


def settled_world(repository: Repository) -> StackWorld:
    """Give what can be asked of a repository as it is, with labels that depend on that alone. Raises StrataError."""
    whole = repository.look()
    world = world_of_repository(repository, whole)
    # All that is known of the graphs is known in their own order now.
    return world_of_repository(repository, compose(whole.planned)) if whole.composition.clashes else world


def world_of_repository(repository: Repository, whole: Whole) -> StackWorld:
    """Give what can be asked of the composed stacks of a repository. Raises StrataError."""
    composition, root = whole.composition, repository.root
    placements = repository.places(whole)

    def runs() -> Runs:
        folders: dict[Path, list[str]] = {}
        for each in whole.planned:
            folders.setdefault(each.part.build.workspace.root, []).append(each.part.prefix)
        everywhere: Full = lambda label: label if composition.owners(label) else None  # noqa: E731 - one of several
        own = {_known(composition, prefixes): _records(Workspace(folder)) for folder, prefixes in folders.items()}
        return Runs({everywhere: _records(state_of(root)), **own})

    return StackWorld(
        [_asked(each) for each in whole.planned], composition, repository.build, placements, runs, root=root
    )


def _asked(planned: Planned) -> Asked:
    file = planned.part.file
    return Asked(file.prefix, planned.plan, file.shown, file)


def _known(composition: Composition, prefixes: Sequence[str]) -> Full:
    def full(local: str) -> str | None:
        found = (composition.known(prefix, local) for prefix in prefixes)
        return next((label for label in found if label is not None), None)

    return full


def _records(workspace: Workspace) -> Records:
    return Records.read(workspace.state / run_record.FILE)


def wanted(
    repository: Repository,
    arguments: Sequence[str],
    *,
    locked: bool,
    everything: Callable[[Planned], list[str]] | None = None,
) -> Callable[[Whole], list[str]]:
    """Give what says which labels of composed stacks a `build` of these arguments is for.

    A stack without labels is built as it is by itself: what is selected of it, or what `everything` gives.
    """

    def of_stack(planned: Planned) -> list[str]:
        return planned.part.session.wanted(planned.plan, (), locked=locked)

    def of(whole: Whole) -> list[str]:
        by_prefix = {each.part.prefix: each for each in whole.planned}
        world: list[StackWorld] = []

        def asked() -> StackWorld:
            if not world:
                world.append(world_of_repository(repository, whole))
            return world[0]

        found: list[str] = []
        for argument in arguments:
            if is_query(argument):
                found += answer(asked(), argument)
                continue
            pattern = parse(argument)
            stacks = _meant(repository, by_prefix, pattern)
            simply = [_simply(each, pattern.local, everything or of_stack) for each in stacks]
            if all(local is not None for local in simply):
                for each, local in zip(stacks, simply, strict=True):
                    found += whole.labels(each, local or ())
            else:
                found += sorted(asked().match(argument))
        return list(dict.fromkeys(found))

    return of


def published(repository: Repository, arguments: Sequence[str], *, locked: bool) -> Callable[[Whole], list[str]]:
    """Give what says which archives of composed stacks a `publish` of these arguments is for.

    Of a stack without labels those of what is selected; else the archives that are meant, and those of Links.
    """
    meant = wanted(repository, arguments, locked=locked, everything=_selected)

    def of(whole: Whole) -> list[str]:
        labels = meant(whole)
        found: list[str] = []
        for each in whole.planned:
            session, local = each.part.session, frozenset(whole.composition.locals(each.part.prefix, labels))
            archives = [info.archive.label for _, info in session.archives(each.plan, local)]
            found += whole.labels(each, [*archives, *session.published_labels(each.plan, local)])
        return list(dict.fromkeys(found))

    return of


def _selected(planned: Planned) -> list[str]:
    return planned.part.session.published_labels(planned.plan)


def _meant(repository: Repository, planned: dict[str, Planned], pattern: Pattern) -> list[Planned]:
    if not pattern.below:
        one = planned.get(stack_file(repository.root, pattern).prefix)
        # One that cannot be analyzed is told by itself.
        return [one] if one is not None else []
    folder = f"{pattern.folder}/" if pattern.folder else ""
    return [each for each in planned.values() if f"{each.part.file.folder}/".startswith(folder)]


def _simply(planned: Planned, local: str, everything: Callable[[Planned], list[str]]) -> list[str] | None:
    """Give the labels of a stack that a word means, where that can be told without a look at its locks."""
    session, plan = planned.part.session, planned.plan
    if local == BELOW:
        return everything(planned)
    if local in (layer.env_name for layer in session.stack.layers) or plan.analysis.graph.item(local) is not None:
        return session.wanted(plan, (local,))
    return None
