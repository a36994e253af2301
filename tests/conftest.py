"""Fixtures that many tests share: a store with an executor, and wheels made on the spot."""

from __future__ import annotations

import base64
import hashlib
import os
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import anyio
import pytest

from strata_engine.action import Action, Literal, Ref, Stored
from strata_engine.cas import Cas
from strata_engine.errors import Diagnostic
from strata_engine.executor import Executor
from strata_engine.index import Index
from strata_engine.tree import Artifact, File, Node, Tree, lookup
from strata_rules import uv


class Bench:
    """Runs actions with the real executor and store, one after the other, and keeps what they gave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = Index(folder, self._warn)
        self.store = Cas(folder, self.index, self._warn)
        (folder / "tmp").mkdir(exist_ok=True)
        self.outputs: dict[str, Artifact] = {}
        self.warnings: list[Diagnostic] = []

    def _warn(self, diagnostic: Diagnostic) -> None:
        self.warnings.append(diagnostic)

    def run(self, action: Action) -> Artifact:
        """Run one action whose inputs are literals, stored nodes or outputs of actions run before."""
        inputs = {name: self._node(given) for name, given in action.inputs.items()}
        executor = Executor(self.store, self.folder / "tmp", lambda event: None)
        try:
            artifact, warnings = anyio.run(executor.run, action, inputs)
        finally:
            executor.close()
        self.warnings += warnings
        self.outputs[action.label] = artifact
        return artifact

    def _node(self, given: object) -> Node:
        match given:
            case Ref(label, path):
                output = self.outputs[label]
                node = lookup(self.store, output, path) if isinstance(output, Tree) else output
                assert node is not None
                return node
            case Stored(node):
                return node
            case Literal(data):
                return File(self.store.put(data))
            case _:
                raise AssertionError(given)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "store")
    yield made
    made.store.flush()
    made.index.close()


def untar(archive: tarfile.TarFile, folder: Path) -> None:
    """Unpack as safely as this Python can: 3.11.2, which Debian 12 has, knows no filters yet."""
    archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))


def uv_environ() -> dict[str, str]:
    """Give an environment in which uv reaches what a build reaches."""
    return {**{name: value for name, value in os.environ.items() if value}, **uv.access(os.environ)}


def record_hash(data: bytes, algorithm: str = "sha256") -> str:
    """Give a hash as RECORD writes it."""
    digest = hashlib.new(algorithm, data).digest()
    return f"{algorithm}={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


class WheelMaker:
    """Makes wheels: sound ones unless told otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def __call__(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        version: str = "1.0",
        tag: str = "py3-none-any",
        modes: Mapping[str, int] | None = None,
        replace: Mapping[str, bytes | None] | None = None,
        requires: Sequence[str] = (),
    ) -> Path:
        """Make one; `replace` gives other bytes to files of `.dist-info`, or leaves them out."""
        info = f"{name}-{version}.dist-info"
        members = dict(files)
        needed = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
        members[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}".encode()
        members[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode()
        changed = {f"{info}/{file}": data for file, data in (replace or {}).items()}
        members |= {path: data for path, data in changed.items() if data is not None}
        members = {path: data for path, data in members.items() if changed.get(path, b"") is not None}
        rows = [f"{path},{record_hash(data)},{len(data)}\n" for path, data in members.items()]
        if f"{info}/RECORD" not in changed:
            members[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
        target = self.folder / f"{name}-{version}-{tag}.whl"
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, data in members.items():
                member = zipfile.ZipInfo(path)
                member.compress_type = zipfile.ZIP_DEFLATED
                member.external_attr = (modes or {}).get(path, 0o100644) << 16
                archive.writestr(member, data)
        return target


@pytest.fixture
def make_wheel(tmp_path: Path) -> WheelMaker:
    return WheelMaker(tmp_path / "wheels")
