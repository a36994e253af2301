"""The rule Wheel: from a wheel's bytes to a tree by install scheme, checked once and shared by every layer.

It knows no platform, no Python and no layout: the same wheel gives the same tree everywhere. The output has
`purelib/`, `platlib/`, `scripts/`, `data/` and `headers/` (those that the wheel fills), `wheel.json` and
`libraries.json`.

The hard part is that a wheel is hostile until checked. Nothing is ever written at a path that the zip chooses: members
become blobs, and their names are keys of a tree that is assembled only when all of them are fit to be
files anywhere. Each file must be listed in RECORD with a strong hash that fits.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from configparser import ConfigParser
from configparser import Error as ConfigError
from email.message import Message
from email.parser import HeaderParser
from typing import NamedTuple

from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from strata_engine.action import Action, Execution, Ref
from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic, Place, SpecError
from strata_engine.tree import File, Store, Tree, assemble, case_clashes, edit
from strata_rules.contents import (
    PLATLIB,
    PURELIB,
    SCHEMES,
    SCRIPTS,
    EntryPoint,
    Library,
    WheelContents,
    encode,
)
from strata_rules.wheel import record
from strata_rules.wheel.zips import Member, bad, file_and_folder, listed, printable, sound, store_member, unsafe

VERSION = 2

MAX_METADATA = 16 << 20
"""Bytes of a file in `.dist-info` that is read into memory as a whole."""

_ENTRY_POINT = re.compile(r"(?P<module>[\w.-]+)\s*:\s*(?P<attr>[\w.-]+)\s*(\[[^\]]*\])?\s*", re.ASCII)


class _Wheel(NamedTuple):
    """A wheel that is being read."""

    file: str
    name: str
    version: Version
    archive: zipfile.ZipFile
    members: dict[str, Member]
    dist_info: str


class _Unpacked(NamedTuple):
    """The files of a wheel by their place in the tree, and what a loader reads in those that are native."""

    nodes: dict[str, File]
    libraries: list[Library]


def wheel_action(label: str, file: str, blob: Ref, place: Place | None = None) -> Action:
    """Make the action that unpacks the wheel `blob`, whose file name is `file`."""
    return Action(
        label=label,
        mnemonic="Wheel",
        version=VERSION,
        params={"file": file},
        inputs={"wheel.whl": blob},
        run=run,
        description=f"unpack {file}",
        place=place,
    )


def run(execution: Execution) -> Tree:
    """Unpack and check the wheel. Raises SpecError: `bad-wheel`, `bad-record`, `unsafe-wheel`."""
    file, store = str(execution.params["file"]), execution.store
    blob = execution.node("wheel.whl")
    assert isinstance(blob, File)
    with store.open(blob.digest) as stream:
        with sound(file):
            archive = zipfile.ZipFile(stream)
        with archive:
            wheel = _open(file, archive, blob.digest.size)
            root = _root_scheme(wheel)
            unpacked = _unpack(execution, wheel, _places(wheel, root))
            contents = _contents(wheel, root, unpacked.nodes)
    tree = assemble(store, unpacked.nodes)
    if not _linux_only(file) and (clashing := case_clashes(store, tree)):
        both = ((first.partition("/")[2], second.partition("/")[2]) for first, second in clashing)
        raise SpecError(*(unsafe(file, f"has `{a}` and `{b}`, one file where case does not count") for a, b in both))
    facts = {"wheel.json": encode(contents), "libraries.json": encode(unpacked.libraries)}
    return edit(store, tree, {name: File(store.put(data)) for name, data in facts.items()})


def _linux_only(file: str) -> bool:
    """Tell whether a wheel can only be installed where `A` and `a` are two names."""
    tags = parse_wheel_filename(file)[3]
    return all(tag.platform.startswith(("linux_", "manylinux", "musllinux")) for tag in tags)


def _open(file: str, archive: zipfile.ZipFile, size: int) -> _Wheel:
    """Check the members and find out what wheel this is."""
    name, version, _, _ = parse_wheel_filename(file)
    members = listed(file, archive, size)
    # A file of that name elsewhere is content; at the root the name is reserved for one folder.
    heads = {path.partition("/")[0] for path in members if "/" in path}
    found = sorted(head for head in heads if head.endswith(".dist-info"))
    if len(found) != 1:
        there = ", ".join(f"`{folder}`" for folder in found) or "none"
        raise SpecError(bad(file, f"needs one `.dist-info` folder and has {there}"))
    return _Wheel(file, name, version, archive, members, found[0])


def _read(wheel: _Wheel, name: str) -> bytes | None:
    """Read a file of `.dist-info`; None where there is none. Raises SpecError where it is too large to be sound."""
    member = wheel.members.get(f"{wheel.dist_info}/{name}")
    if member is None:
        return None
    if member.info.file_size > MAX_METADATA:
        raise SpecError(bad(wheel.file, f"has a `{name}` of more than {MAX_METADATA >> 20} MiB"))
    with sound(wheel.file):
        return wheel.archive.read(member.info)


def _headers(wheel: _Wheel, name: str) -> Message:
    """Read the headers of METADATA or WHEEL. Raises SpecError where there is none, or no text."""
    data = _read(wheel, name)
    if data is None:
        raise SpecError(bad(wheel.file, f"has no `{wheel.dist_info}/{name}`"))
    return HeaderParser().parsestr(_text(wheel, name, data))


def _text(wheel: _Wheel, name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise SpecError(bad(wheel.file, f"has a `{name}` that is not UTF-8")) from None


def _root_scheme(wheel: _Wheel) -> str:
    """Check that WHEEL is of a known version, and say which scheme the wheel's root belongs to."""
    headers = _headers(wheel, "WHEEL")
    version = str(headers.get("Wheel-Version", "")).strip()
    if not re.fullmatch(r"1\.\d+", version, re.ASCII):
        raise SpecError(bad(wheel.file, f"has `Wheel-Version: {version}`; expected 1.0"))
    return PURELIB if str(headers.get("Root-Is-Purelib", "")).strip().lower() == "true" else PLATLIB


def _places(wheel: _Wheel, root: str) -> dict[str, str]:
    """Give each member its place in the tree: `SCHEME/…`."""
    data = f"{wheel.dist_info.removesuffix('.dist-info')}.data"
    places: dict[str, str] = {}
    wrong: list[Diagnostic] = []
    for path in wheel.members:
        head, _, rest = path.partition("/")
        scheme, _, inner = rest.partition("/")
        if head != data:
            places[path] = f"{root}/{path}"
        elif scheme not in SCHEMES or not inner:
            wrong.append(bad(wheel.file, f"has `{path}`, which is in none of {', '.join(SCHEMES)}"))
        elif scheme == SCRIPTS and "/" in inner:
            wrong.append(bad(wheel.file, f"has `{path}`: scripts may not stand in a folder"))
        else:
            places[path] = rest
    if wrong:
        raise SpecError(*wrong)
    if both := file_and_folder(places.values()):
        raise SpecError(*(unsafe(wheel.file, f"installs `{path}` as a file and as a folder") for path in both))
    if len(set(places.values())) < len(places):
        raise SpecError(unsafe(wheel.file, f"installs a file both from its root and from `{data}`"))
    return places


def _unpack(execution: Execution, wheel: _Wheel, places: dict[str, str]) -> _Unpacked:
    """Put every member into the store and compare it with RECORD. Raises SpecError with all that is wrong."""
    own = f"{wheel.dist_info}/RECORD"
    data = _read(wheel, "RECORD")
    if data is None:
        raise SpecError(record.bad(wheel.file, f"there is no `{own}`"))
    rows, wrong = record.parse(data, wheel.file)
    unlisted = {own, *(f"{wheel.dist_info}/{name}" for name in record.SIGNATURES)}
    nodes: dict[str, File] = {}
    libraries: list[Library] = []
    total, done = sum(member.info.file_size for member in wheel.members.values()), 0
    for path, member in sorted(wheel.members.items()):
        execution.check_cancelled()
        place = places[path]
        with sound(wheel.file):
            digest, native = store_member(execution.store, wheel.archive, member.info, place)
        nodes[place] = File(digest, member.executable or place.startswith(f"{SCRIPTS}/"))
        libraries += native
        if path not in unlisted and (problem := _mismatch(execution.store, path, rows.get(path), digest)):
            wrong.append(record.bad(wheel.file, problem))
        done += digest.size
        execution.progress(done, total)
    wrong += [
        record.bad(wheel.file, f"RECORD lists `{printable(path)}`, which is not there")
        for path in sorted(rows.keys() - wheel.members.keys() - unlisted)
    ]
    if wrong:
        raise SpecError(*wrong)
    return _Unpacked(nodes, libraries)


def _mismatch(store: Store, path: str, entry: record.Row | None, digest: Digest) -> str | None:
    if entry is None:
        return f"`{path}` is not listed in RECORD"
    if (weak := record.weakness(entry)) is not None:
        return weak
    if record.matches(entry, digest, lambda: store.open(digest)):
        return None
    return f"`{path}` is not what RECORD says: its hash or size differs"


def _contents(wheel: _Wheel, root: str, nodes: dict[str, File]) -> WheelContents:
    """Read METADATA and entry points. Raises SpecError where file name, folder and METADATA disagree."""
    headers = _headers(wheel, "METADATA")
    name, version = str(headers.get("Name", "")).strip(), str(headers.get("Version", "")).strip()
    folder = wheel.dist_info.removesuffix(".dist-info").rpartition("-")
    claims = {f"`{wheel.dist_info}`": (folder[0], folder[2]), "METADATA": (name, version)}
    wrong = [
        bad(wheel.file, f"is called otherwise inside: {where} says `{claimed[0]}` {claimed[1]}")
        for where, claimed in claims.items()
        if not _agrees(wheel, *claimed)
    ]
    if wrong:
        raise SpecError(*wrong)
    tags = parse_wheel_filename(wheel.file)[3]
    return WheelContents(
        name=wheel.name,
        version=version,
        dist_info=wheel.dist_info,
        root=root,
        tags=tuple(sorted(str(tag) for tag in tags)),
        entry_points=_entry_points(wheel),
        top_level=_top_level(nodes),
    )


def _agrees(wheel: _Wheel, name: str, version: str) -> bool:
    """Tell whether a name and version are the file name's; as uv, METADATA may leave the local version out."""
    try:
        number = Version(version)
    except InvalidVersion:
        return False
    return canonicalize_name(name) == wheel.name and (
        number == wheel.version or number == Version(wheel.version.public)
    )


def _entry_points(wheel: _Wheel) -> tuple[EntryPoint, ...]:
    """Read the scripts that the wheel asks for. Raises SpecError where one has no safe name or calls nothing."""
    data = _read(wheel, "entry_points.txt")
    if data is None:
        return ()
    parser = ConfigParser(delimiters=("=",), interpolation=None, strict=False, allow_no_value=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # names are case-sensitive here
    try:
        parser.read_string(_text(wheel, "entry_points.txt", data))
    except ConfigError as error:
        reason = str(error).splitlines()[0]
        raise SpecError(bad(wheel.file, f"has an `entry_points.txt` that cannot be read: {reason}")) from None
    found: list[EntryPoint] = []
    for section, gui in (("console_scripts", False), ("gui_scripts", True)):
        for name, value in parser.items(section) if parser.has_section(section) else ():
            match = _ENTRY_POINT.fullmatch(value or "")
            if match is None:
                raise SpecError(bad(wheel.file, f"has the entry point `{name}`, which calls nothing: `{value}`"))
            if not name.isprintable() or name in (".", "..") or set(name) & set('/\\:*?"<>|'):
                raise SpecError(unsafe(wheel.file, f"has the entry point `{printable(name)}`: not a file name"))
            found.append(EntryPoint(name=name, module=match["module"], attr=match["attr"], gui=gui))
    return tuple(sorted(found, key=lambda point: (point.gui, point.name)))


def _top_level(nodes: Iterable[str]) -> tuple[str, ...]:
    """List the names that the wheel lets a program import."""
    names: set[str] = set()
    for place in nodes:
        scheme, _, path = place.partition("/")
        head, inner, _ = path.partition("/")
        if scheme in (PURELIB, PLATLIB):
            stem = head if inner else head.partition(".")[0] if head.endswith((".py", ".so", ".pyd")) else ""
            names |= {stem} if stem.isidentifier() else set()
    return tuple(sorted(names))
