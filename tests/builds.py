"""A workspace with a store, and actions to build in it: what tests of the engine are written with."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import Phase

from strata_engine.action import Action, Execution, Expansion, Input, Placement, Ref
from strata_engine.build import Build, BuildResult, open_build
from strata_engine.decision import Settings
from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic
from strata_engine.events import Event, Listener
from strata_engine.graph import ActionGraph
from strata_engine.remote.settings import Access, RemoteSettings
from strata_engine.run_record import ActionReport
from strata_engine.store import LocalStore, open_store
from strata_engine.tree import Artifact, File
from strata_engine.workspace import Workspace

E = TypeVar("E", bound=Event)


def combine(execution: Execution) -> Artifact:
    """Give what all inputs say, one after the other."""
    said = [execution.read(name).decode() for name in execution.names()]
    return File(execution.store.put("+".join([str(execution.params.get("say", "")), *said]).encode()))


def make(label: str, *needs: str, run: Callable[..., Any] = combine, say: str | None = None, **fields: Any) -> Action:
    """Make an action that reads the outputs called `needs`, besides the inputs that are given."""
    inputs: Mapping[str, Input] = {f"from/{need}": Ref(need) for need in needs} | fields.pop("inputs", {})
    params = {"say": label if say is None else say} | fields.pop("params", {})
    fields = {"mnemonic": "Combine", "version": 1, "params": params} | fields
    return Action(label=label, run=run, inputs=inputs, **fields)


def graph_of(items: Iterable[Action | Expansion]) -> ActionGraph:
    """Make a graph."""
    graph = ActionGraph()
    for item in items:
        graph.add(item)
    return graph


NO_SHRINK = (Phase.explicit, Phase.reuse, Phase.generate)
"""Each example is a series of real builds: shrinking one takes longer than reading it."""


def let_go() -> None:
    """Wait for the build's threads, whose connections to the index end with them.

    SQLite maps `-shm` into memory: cutting it short under an open connection kills the process, whoever does it.
    """
    for thread in threading.enumerate():
        if thread.name.startswith("AnyIO worker"):
            thread.join(10)
    gc.collect()


class Site:
    """A workspace folder and a store that builds open anew, each as another process would."""

    def __init__(self, root: Path, store: Path | None = None) -> None:
        self.root = root
        self.store = store or root / "store"
        self.events: list[Event] = []
        """Those of the last build."""
        self.listeners: tuple[Listener, ...] = ()
        """Others who hear them, from whichever thread."""
        self.said: list[Diagnostic] = []
        """What the store has said."""
        self.remotes = RemoteSettings()
        """The remote caches of its builds."""
        root.mkdir(exist_ok=True)

    @property
    def workspace(self) -> Workspace:
        """Give the workspace."""
        return Workspace(self.root)

    def write(self, path: str, text: str) -> Path:
        """Write a source."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return place

    @contextlib.contextmanager
    def opened_store(self) -> Iterator[LocalStore]:
        """Open the store."""
        store = open_store(self.store, self.said.append)
        try:
            yield store
        finally:
            store.close()

    @contextlib.contextmanager
    def opened(self) -> Iterator[Build]:
        """Open a build."""
        self.events = []
        with self.opened_store() as store, self._build(store) as build:
            build.remotes = self.remotes
            yield build

    def _build(self, store: LocalStore) -> contextlib.AbstractContextManager[Build]:
        return open_build(self.workspace, (self.events.append, *self.listeners), store)

    def build(
        self,
        items: Iterable[Action | Expansion],
        wanted: Sequence[str] | None = None,
        places: Mapping[str, str] | None = None,
        whole: Sequence[str] = (),
        **settings: Any,
    ) -> BuildResult:
        """Build `wanted`, or all actions; `places` are labels (or `label:path`) by where their outputs go.

        Of the labels in `whole` all blobs are to be had.
        """
        graph = graph_of(items)
        labels = [action.label for action in graph.actions()] if wanted is None else wanted
        placements = [
            Placement(Ref(label.partition(":")[0], label.partition(":")[2]), self.root / path)
            for path, label in (places or {}).items()
        ]
        with self.opened() as build:
            return build.run(graph, labels, placements, Settings(**settings), whole=[Ref(label) for label in whole])

    def heard(self, kind: type[E]) -> list[E]:
        """List the last build's events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]


def remote(*urls: str, **more: Any) -> RemoteSettings:
    """Give what a build is told of the caches at `urls`: short stalls, for tests."""
    return RemoteSettings(caches=tuple(Access(url=url) for url in urls), **({"timeout": 0.5} | more))


def text_of(site: Site, result: BuildResult, label: str) -> str:
    """Read an output."""
    artifact = result.artifacts[label]
    assert isinstance(artifact, File)
    with site.opened_store() as store:
        return store.cas.get(artifact.digest).decode()


def outcomes(result: BuildResult) -> dict[str, str]:
    """Give each label's outcome."""
    return {report.label: report.outcome.value for report in result.actions}


def counts(result: BuildResult) -> dict[str, int]:
    """Give the counts that are not zero."""
    return {name: count for name, count in result.counts.items() if count}


def report(result: BuildResult, label: str) -> ActionReport:
    """Find a label's report."""
    return next(report for report in result.actions if report.label == label)


def reasons(result: BuildResult, label: str) -> list[str]:
    """Give a label's reasons as text."""
    return [str(reason) for reason in report(result, label).reasons]


def key_of(result: BuildResult, label: str) -> Digest:
    """Give a label's key."""
    return Digest.parse(report(result, label).key)
