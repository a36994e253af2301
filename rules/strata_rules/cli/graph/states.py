"""The states that two builds left, found by name or read from a file, and compared.

One of them may have been left on another machine: then all that is known of it is in the file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from strata_engine.compare import Differences, Either, compare
from strata_engine.errors import HostError, SpecError
from strata_engine.exported import Believed, read_exported
from strata_engine.held import Held, held_at
from strata_engine.recorded_graph import RecordedAction
from strata_engine.run_record import RunRecord
from strata_engine.tree import Reader
from strata_rules.cli.graph.asked import Kept, find_build, is_file


class State(NamedTuple):
    """What a build left."""

    name: str
    """For a person."""
    record: RunRecord
    held: Mapping[str, Held]
    graph: Mapping[str, RecordedAction]
    content: Believed | None = None
    """What explains its keys, where that is not in the store."""


class Compared(NamedTuple):
    """Two states, and how they differ."""

    old: State
    new: State
    differences: Differences
    reader: Reader
    """Where the content of both is, as long as they are compared."""


def state_of(kept: Kept, name: str) -> State:
    """Give the state after the build, or in the file, that a name means. Raises SpecError, HostError."""
    if not is_file(name):
        at = find_build(kept.records, name)
        record = kept.records[at]
        return State(
            f"run {record.run.rpartition('-')[2]}", record, held_at(kept.records, at, kept.past, kept.graph), kept.graph
        )
    try:
        document, content = read_exported(Path(name))
    except FileNotFoundError as error:
        raise SpecError.of("unknown-run", f"there is no file `{name}`") from error
    except OSError as error:
        raise HostError.of("unreadable", f"`{name}` cannot be read: {error.strerror}") from error
    held = {label: Held(each.key, each.output, each.mnemonic) for label, each in document.held.items()}
    run = document.record.run.rpartition("-")[2]
    return State(f"run {run} of {Path(name).name}", document.record, held, document.graph, content)


@contextmanager
def compared(kept: Kept, old: State, new: State, labels: Collection[str] | None = None) -> Iterator[Compared]:
    """Compare two states, of all labels or of these."""
    with kept.content() as store:
        readers: list[Reader] = [] if store is None else [store]
        readers += [each.content for each in (old, new) if each.content is not None]
        reader = Either(*readers)
        graph = {**old.graph, **new.graph}
        yield Compared(old, new, compare(reader, graph, old.held, new.held, labels), reader)
