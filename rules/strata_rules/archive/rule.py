"""The Archive action: a linked layer as one file, reproducible to the byte.

It knows nothing of how a layer is made; formats are in `tarstream`, `zipstream` and `compress`. The hard part is to
use every core and still give bytes that depend on content alone: the stream is cut into chunks whose bounds depend on
their own members (`members.chunks`), each chunk is compressed alone, and they are written in order.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import msgspec

from strata_engine.action import Action, Execution, Ref
from strata_engine.errors import SpecError
from strata_engine.rule import RuleContext
from strata_engine.tree import File, Tree
from strata_rules.archive import members, tarstream, zipstream
from strata_rules.compress import CODECS, Packed
from strata_rules.layout import is_windows
from strata_rules.providers import ArchiveInfo, CompiledInfo, LinkInfo

VERSION = 1

FORMATS = ("tar.xz", "tar.zst", "tar.gz", "zip", "dir")

T = TypeVar("T")
R = TypeVar("R")


class ArchiveAttrs(msgspec.Struct, frozen=True, kw_only=True):
    """What an Archive target is given. Its dependencies give the layer's LinkInfo and, for bytecode, CompiledInfo."""

    layer: str
    platform: str
    format: str = ""
    """One of `FORMATS`; empty means the platform's own."""
    level: int | None = None
    """None means the format's own."""
    bytecode: bool = False
    """Whether modules are archived with bytecode."""
    host: str
    """This machine's platform: the one whose labels have no suffix."""


def default_format(platform: str) -> str:
    """Give the format that venvstacks publishes for a platform."""
    return "zip" if is_windows(platform) else "tar.xz"


def archive(ctx: RuleContext) -> tuple[object, ...]:
    """Add the Archive action of one layer; `dir` needs none, for a linked tree is published as it is."""
    attrs = ctx.attrs(ArchiveAttrs)
    link = next(info for info in ctx.all(LinkInfo) if (info.layer, info.platform) == (attrs.layer, attrs.platform))
    format_ = attrs.format or default_format(attrs.platform)
    if attrs.bytecode:
        compiled = ctx.one(CompiledInfo)
        # What replaces a folder leaves no old bytecode there; what is unpacked may.
        link = msgspec.structs.replace(link, tree=compiled.tree if format_ == "dir" else compiled.checked)
    ref = link.tree
    if format_ != "dir":
        foreign = [] if attrs.platform == attrs.host else [attrs.platform]
        chosen = [] if format_ == default_format(attrs.platform) else [format_]
        label = f"{attrs.layer}/archive" + (f"[{','.join([*foreign, *chosen])}]" if foreign or chosen else "")
        level = checked_level(format_, attrs.level)
        ctx.add(archive_action(label, link, format_, level))
        ref = Ref(label)
    info = ArchiveInfo(
        layer=attrs.layer,
        install_target=link.install_target,
        platform=attrs.platform,
        format=format_,
        archive=ref,
    )
    return (info,)


def checked_level(format_: str, level: int | None) -> int:
    """Give the level to use. Raises SpecError for an unknown format or a level that it does not have."""
    if format_ not in FORMATS or format_ == "dir":
        raise SpecError.of(
            "unknown-archive-format",
            f"there is no archive format `{format_}`",
            hint=f"use one of {', '.join(f'`{name}`' for name in FORMATS)}",
        )
    codec = CODECS.get(format_.removeprefix("tar."))
    levels, default = (codec.levels, codec.level) if codec else (zipstream.LEVELS, zipstream.LEVEL)
    if level is None:
        return default
    if level not in levels:
        raise SpecError.of(
            "bad-compression-level",
            f"`{format_}` has no compression level {level}",
            hint=f"use a level from {levels[0]} to {levels[-1]}",
        )
    return level


def archive_action(label: str, link: LinkInfo, format_: str, level: int) -> Action:
    """Make the action for one archive."""
    tool = CODECS[format_.removeprefix("tar.")] if format_ != "zip" else CODECS["gz"]
    return Action(
        label=label,
        mnemonic="Archive",
        version=VERSION,
        params={
            "format": format_,
            "level": level,
            "prefix": link.install_target,
            "symlinks": "copy" if is_windows(link.platform) else "keep",
        },
        inputs={"tree": link.tree},
        platform={f"tool:{tool.tool}": tool.version()},
        run=run,
        description=f"archive `{link.install_target}` as {format_}",
    )


def run(execution: Execution) -> File:
    """Write the archive, read straight from the store."""
    tree = execution.node("tree")
    assert isinstance(tree, Tree)
    format_, level = str(execution.params["format"]), int(str(execution.params["level"]))
    listed = list(
        members.members(
            execution.store, tree, str(execution.params["prefix"]), follow=execution.params["symlinks"] == "copy"
        )
    )
    pieces = _zip(execution, listed, level) if format_ == "zip" else _tar(execution, listed, format_, level)
    done, total = 0, sum(entry.size for entry in listed)
    with execution.store.writer() as out:
        for data, taken in pieces:
            out.write(data)
            done += taken
            # A stream's headers and padding are not what the user counts.
            execution.progress(min(done, total), total)
        return File(out.commit())


def _tar(
    execution: Execution, listed: Iterable[members.Member], format_: str, level: int
) -> Iterator[tuple[bytes, int]]:
    codec = CODECS[format_.removeprefix("tar.")]
    joiner = codec.joiner()

    def pack(chunk: list[members.Piece]) -> Packed:
        return codec.pack(members.read(execution.store, chunk, execution.check_cancelled), level)

    for packed in in_order(pack, members.chunks(tarstream.runs(listed), codec.chunk), execution.check_cancelled):
        yield joiner.add(packed), packed.size
    yield joiner.end(), 0


def _zip(execution: Execution, listed: Iterable[members.Member], level: int) -> Iterator[tuple[bytes, int]]:
    joiner = zipstream.Joiner()

    def pack(batch: list[zipstream.Slice]) -> list[zipstream.Part]:
        return zipstream.pack(execution.store, batch, level, execution.check_cancelled)

    for parts in in_order(pack, zipstream.batches(listed), execution.check_cancelled):
        yield b"".join([joiner.add(part) for part in parts]), sum(part.size for part in parts)
    yield joiner.end(), 0


def cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def in_order(work: Callable[[T], R], items: Iterable[T], check: Callable[[], None]) -> Iterator[R]:
    """Do `work` on all cores and give its results in the order of `items`, a few of them ahead.

    Threads do: compression releases the interpreter lock. When the caller stops early, nothing is left running.
    """
    workers = cores()
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="archive") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > workers + 1:
                    check()
                    yield waiting.popleft().result()
            while waiting:
                check()
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
