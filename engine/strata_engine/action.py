"""The nouns of the action graph: labels, inputs, actions, expansions.

All are frozen. What a person reads (`label`, `description`, `place`) and what travels beside an action (`run`,
`committed`, a Source's path) never enters its key; `key` says what does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec

from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic, Place
from strata_engine.tree import Artifact, Node, Store, Tree

if TYPE_CHECKING:
    # Who reads records of actions runs nothing.
    import subprocess

Json: TypeAlias = "str | int | bool | list[Json] | dict[str, Json]"
"""What a parameter may be: JSON without floats and nulls, so that its canonical text is unique (design §3)."""


class Scope(StrEnum):
    """Where the result of an action may be kept."""

    CACHED = "cached"
    """In every action cache."""
    FIXED_OUTPUT = "fixed-output"
    """Known by the SHA-256 of its output alone."""
    LOCAL = "local"
    """In this machine's action cache only."""
    VOLATILE = "volatile"
    """Nowhere: it runs in every build that wants it."""


class Ref(msgspec.Struct, frozen=True):
    """An input that another action makes: its whole output, or the entry at `path` inside it."""

    label: str
    path: str = ""


class Source(msgspec.Struct, frozen=True):
    """An input that is a file of the workspace; `path` is relative to its root, or absolute."""

    path: str


class SourceTree(msgspec.Struct, frozen=True):
    """An input that is a folder of the workspace, captured with the entries that `accept` takes.

    `accept` is given each entry's path relative to the folder (posix) and whether it is a folder.
    """

    path: str
    accept: Callable[[str, bool], bool] | None = None
    follow: bool = False
    """Whether symlinks are captured as what they lead to, and not as they are written."""
    empty: Callable[[str], bool] | None = None
    """Given a folder's path, tells whether it is captured though nothing in it is; without it, none is."""


class Literal(msgspec.Struct, frozen=True):
    """An input whose bytes are known in analysis."""

    data: bytes


class Stored(msgspec.Struct, frozen=True):
    """An input that lies in the store already."""

    node: Node


Input: TypeAlias = Ref | Source | SourceTree | Literal | Stored


class Execution(Protocol):
    """What an action's `run` is given: its inputs by name, a place to work, and a way to be heard.

    Nothing else of the machine may influence the output. Methods may be called from worker threads.
    """

    @property
    def label(self) -> str:
        """The action's label, for messages."""

    @property
    def params(self) -> Mapping[str, Json]:
        """The parameters that are in the key."""

    @property
    def store(self) -> Store:
        """The CAS: read inputs from it, put outputs into it."""

    @property
    def scratch(self) -> Path:
        """An empty folder of this execution's own, made on first use and removed afterwards."""

    def node(self, name: str) -> Node:
        """Give the input called `name`. Raises KeyError."""

    def names(self, prefix: str = "") -> list[str]:
        """List the inputs whose names start with `prefix`, in byte order."""

    def read(self, name: str) -> bytes:
        """Read the input file called `name`."""

    def progress(self, done: int, total: int | None = None) -> None:
        """Say how many bytes are done, of how many."""

    def warn(self, diagnostic: Diagnostic) -> None:
        """Say something that does not stop the build; it is kept with the result and said again on a cache hit."""

    def check_cancelled(self) -> None:
        """Raise the cancellation of this build, if there is one: call it in long loops on a worker thread."""

    def stage(self, name: str, folder: Path) -> None:
        """Materialize the input tree or file called `name` at `folder`, writable and the execution's own."""

    def folder(self, name: str) -> Path:
        """Give a folder with the content of the input tree called `name`, which all actions of this build share.

        Nothing in it may be changed; it is for what is large and only read or run, as a runtime is.
        """

    def capture(self, folder: Path) -> Artifact:
        """Put a folder of `scratch` into the store as a tree."""

    def command(
        self,
        arguments: Iterable[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        show: Callable[[str], str] = str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, from a worker thread, and give its exit code and output.

        Each line is told as it comes, as `show` makes it: without secrets, and not at all where it makes it empty.

        Its environment is the action's `environment` plus `env` plus a fixed minimum, nothing else. It runs in a
        process group of its own, which is ended when the build is cancelled. Raises HostError when it cannot start.
        """


class Committed(Protocol):
    """A result that the workspace keeps among its sources, as git keeps locks (design §4, Lock)."""

    def read(self, key: Digest, store: Store) -> Artifact | None:
        """Give the kept result if it is valid for this key, having put its bytes into the store."""

    def write(self, key: Digest, artifact: Artifact, store: Store) -> None:
        """Keep `artifact` as the result for `key`, atomically. Raises HostError."""

    def why_invalid(self, key: Digest) -> tuple[str, ...]:
        """Say in sentences why the kept result does not fit; used when the build may not replace it."""


Run: TypeAlias = "Callable[[Execution], Artifact] | Callable[[Execution], Awaitable[Artifact]]"


class Action(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One cacheable piece of work: named inputs to one output, `out`, a blob or a tree."""

    label: str
    mnemonic: str
    version: int
    """The rule's version: a change that changes any output digest must raise it (design §3)."""
    params: Mapping[str, Json] = {}
    inputs: Mapping[str, Input] = {}
    environment: Mapping[str, str] = {}
    """Only for actions that run a subprocess."""
    platform: Mapping[str, str] = {}
    """REAPI platform properties: only where the bytes depend on the host. Tools are `tool:NAME` → version."""
    scope: Scope = Scope.CACHED
    pool: str = "cpu"
    run: Run
    """A plain function runs on a worker thread, a coroutine function on the event loop."""
    fixed: str | None = None
    """For `Scope.FIXED_OUTPUT`: the SHA-256 that the output file must have."""
    committed: Committed | None = None
    pinned: str = ""
    """For `Scope.LOCAL`: the entry of the output whose digest the workspace keeps, so that others may have it."""
    expected: Tree | None = None
    """That entry, where it is kept by now: a result of another machine that has it is as good as one of ours."""
    description: str = ""
    place: Place | None = None
    """Where in the stack file this action comes from."""
    origins: Mapping[str, str] = {}
    """Where parameters come from, by their path or the beginning of it: `path#key`, a variable. For people alone."""
    derived: Mapping[str, str] = {}
    """Parameters that were taken from the output of another action, by their path: that one's label.

    Where one also has an origin, that it is there at all is written there.
    """
    members: Mapping[str, str] = {}
    """Inputs that are there because a list names them, by the folder that they are in: where a person has written it.

    Their names are `FOLDER/NNNN-MEMBER` or `FOLDER/NNNN-MEMBER.json`, in the order of the list.
    """
    presence: str = ""
    """The parameter that decides by being empty or not whether the action has most of its others, and inputs."""
    attends: Mapping[str, str] = {}
    """Parameters that come and go with the value of another one, by their paths: that one's name."""


class Expansion(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A part of the graph that is known only once some output is: what a lock selects, for example.

    When every `after` is available, `expand` is given a reader of their bytes and returns more graph. It must be a
    pure, quick function, and must add every label in `promises`, which other actions may refer to beforehand.
    """

    label: str
    after: tuple[Ref, ...]
    promises: tuple[str, ...]
    expand: Callable[[Callable[[Ref], bytes]], Iterable[Action | Expansion]]


class Placement(msgspec.Struct, frozen=True):
    """A wish: the output `ref` is to be found at `path`, replaced as a whole whenever it differs."""

    ref: Ref
    path: Path
