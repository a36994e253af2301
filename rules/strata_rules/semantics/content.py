"""What changed between two contents: lines of text, sizes, files of a tree, packages of a layer, versions in a lock.

It knows the formats that our own actions write, as far as it needs them, and reads them by itself: their nouns live in
modules that cost more to import than all that is said here takes. What is damaged raises anything; who asks catches it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from strata_engine.digest import Digest
from strata_engine.tree import File, Node, Reader, Symlink, Tree, listing, lookup
from strata_engine.words import size
from strata_rules.semantics.sides import Found, Sides

MAX_SIZE = 1 << 20
"""Files above this are not read."""

MAX_LINES = 4000
"""Texts that differ in more lines than these are not compared line by line."""

SHOWN = 3
"""Files that are named."""

DIFF_LINES = 8
"""Lines of text that are shown."""

FOLDERS = 2000
"""Folders that are read to compare two trees."""

_DIST_INFO = ".dist-info"


def of_nodes(cas: Reader, found: Found) -> Iterator[str]:
    """Say what changed in an input."""
    old, new = found.old, found.new
    trees = isinstance(old, Tree | None) and isinstance(new, Tree | None)
    if trees:
        packages = [_wheel(cas, side) for side in (old, new)]
        yield from _packages(*({each.name: each} if each else {} for each in packages))
        if not any(packages) or all(packages):
            yield from _files(cas, old, new, described=not any(packages))
    elif found.name.startswith("pins/"):
        yield from _packages(*(_pins(_read(cas, side)) for side in (old, new)))
    elif found.name == "archive":
        digests = [side.digest.hash[:12] if isinstance(side, File) else "(none)" for side in (old, new)]
        yield f"archive sha256 {digests[0]} → {digests[1]}"
    elif found.name.endswith("libraries.json"):
        yield from _libraries(*(_names(_read(cas, side)) for side in (old, new)))
    else:
        yield from _file(cas, old, new)


def of_selections(sides: Sides) -> Iterator[str]:
    """Say which packages an Install has now and had before."""
    folders = [lookup(sides.cas, side, "wheels") for side in (sides.old, sides.new)]
    members = [dict(listing(sides.cas, each)) if isinstance(each, Tree) else {} for each in folders]
    differing = [name for name in members[0].keys() | members[1].keys() if members[0].get(name) != members[1].get(name)]
    old, new = ({name: _wheel(sides.cas, side.get(name)) for name in differing} for side in members)
    yield from _packages(*({name: each for name, each in side.items() if each} for side in (old, new)))


def of_locks(cas: Reader, former: str, output: str) -> Iterator[str]:
    """Say what a lock selects now and had selected: packages, then the wheels and indexes of those that stayed."""
    if not former or not output or former == output:
        return
    trees = [Tree(Digest.parse(side)) for side in (former, output)]
    pins = [_pins(_read(cas, lookup(cas, side, "pins.json"))) for side in trees]
    yield from _packages(*pins)
    locks = [_locked(_read(cas, lookup(cas, side, "pylock.toml"))) for side in trees]
    for key in sorted(locks[0].keys() & locks[1].keys()):
        name, version = key
        (old_index, old), (new_index, new) = locks[0][key], locks[1][key]
        if old_index != new_index:
            yield f"{name} {version}: index {old_index or '(none)'} → {new_index or '(none)'}"
        come, gone = (sorted({_tags(file) for file in one - other}) for one, other in ((new, old), (old, new)))
        if come or gone:
            told = [*(f"+ {tags}" for tags in come), *(f"- {tags}" for tags in gone)]
            yield f"{name} {version}: wheels {', '.join(told[:SHOWN])}{', …' if len(told) > SHOWN else ''}"


class _Package(NamedTuple):
    """A package: its version, and of a wheel what it runs on."""

    name: str
    version: str
    tags: tuple[str, ...] = ()


def _packages(old: Mapping[str, _Package], new: Mapping[str, _Package]) -> Iterator[str]:
    """Say which packages came, went, or are others now."""
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if before is None and after is not None:
            yield f"+ {after.name} {after.version}"
        elif after is None and before is not None:
            yield f"- {before.name} {before.version}"
        elif before is not None and after is not None and before.version != after.version:
            yield f"{after.name} {before.version} → {after.version}"
        elif before is not None and after is not None and before.tags != after.tags:
            yield f"{after.name} {after.version}: wheel {_listed(before.tags)} → {_listed(after.tags)}"


def _listed(names: Sequence[str]) -> str:
    return ".".join(names[:2]) + ("…" if len(names) > 2 else "")


def _read(cas: Reader, node: Node | None) -> bytes:
    """Read a file's content; nothing where there is no file, or one that is too large."""
    return cas.get(node.digest) if isinstance(node, File) and node.digest.size <= MAX_SIZE else b""


def _wheel(cas: Reader, node: Node | None) -> _Package | None:
    """Read what an unpacked wheel says of itself."""
    data = _read(cas, lookup(cas, node, "wheel.json")) if isinstance(node, Tree) else b""
    said = json.loads(data) if data else None
    return _Package(str(said["name"]), str(said["version"]), tuple(map(str, said.get("tags", ())))) if said else None


def _pins(data: bytes) -> dict[str, _Package]:
    pins = [_Package(str(each["name"]), str(each["version"])) for each in json.loads(data or b"[]")]
    # Under markers, a name may be there in several versions.
    several = {each.name for number, each in enumerate(pins) if each.name in {other.name for other in pins[:number]}}
    return {f"{each.name} {each.version}" if each.name in several else each.name: each for each in pins}


def _locked(data: bytes) -> dict[tuple[str, str], tuple[str, set[str]]]:
    """Give of each locked package its index and the file names of its wheels."""
    import tomllib  # noqa: PLC0415 - most changes need none

    found: dict[tuple[str, str], tuple[str, set[str]]] = {}
    for package in tomllib.loads(data.decode()).get("packages", ()):
        wheels: list[dict[str, Any]] = package.get("wheels", [])
        files = {str(each.get("name") or each.get("url") or each.get("path", "")).rpartition("/")[2] for each in wheels}
        found[str(package["name"]), str(package["version"])] = (str(package.get("index", "")), files)
    return found


def _tags(file: str) -> str:
    """Give what a wheel is for, by its file name."""
    return "-".join(file.removesuffix(".whl").split("-")[-3:])


def _names(data: bytes) -> set[str]:
    """List the libraries that a layer offers, or has."""
    said = json.loads(data) if data else []
    return set(said["libraries"]) if isinstance(said, dict) else {str(each["path"]) for each in said}


def _libraries(old: set[str], new: set[str]) -> Iterator[str]:
    yield from (f"+ library {name}" for name in sorted(new - old))
    yield from (f"- library {name}" for name in sorted(old - new))


def _files(cas: Reader, old: Node | None, new: Node | None, *, described: bool) -> Iterator[str]:
    """Say which files differ between two trees, and, if asked for, which packages by the folders that describe them."""
    changes = _Changes(cas)
    changes.compare("", old, new)
    if described:
        sides = [[_described(name) for name in sorted(side)] for side in (changes.gone, changes.come)]
        yield from _packages(*({each.name: each for each in side} for side in sides))
    told = [f"{count} {word}" for word, count in changes.counts.items() if count]
    if told:
        named = ", ".join(changes.named[:SHOWN])
        more = ", …" if len(changes.named) > SHOWN else ""
        yield f"files: {', '.join(told)}{'' if changes.whole else ' at least'}: {named}{more}"


def _described(folder: str) -> _Package:
    name, _, version = folder.removesuffix(_DIST_INFO).partition("-")
    return _Package(name, version)


class _Changes:
    """The files that differ between two trees, counted, and the first few of them."""

    def __init__(self, cas: Reader) -> None:
        self._cas = cas
        self._left = FOLDERS
        self.counts = {"added": 0, "removed": 0, "changed": 0}
        self.named: list[str] = []
        self.gone: set[str] = set()
        self.come: set[str] = set()
        self.whole = True

    def compare(self, path: str, old: Node | None, new: Node | None) -> None:
        """Count what differs at a path and below it."""
        if not isinstance(old, Tree | None) or not isinstance(new, Tree | None):
            for each, other, word in ((old, new, "removed"), (new, old, "added")):
                if isinstance(each, File | Symlink) and not isinstance(other, File | Symlink):
                    self._count(word, path)
            if isinstance(old, File | Symlink) and isinstance(new, File | Symlink):
                self._count("changed", path)
        before, after = self._members(old), self._members(new)
        for name in sorted(before.keys() | after.keys()):
            left, right = before.get(name), after.get(name)
            if left != right:
                if name.endswith(_DIST_INFO) and (left is None or right is None):
                    (self.come if left is None else self.gone).add(name)
                self.compare(f"{path}/{name}".lstrip("/"), left, right)

    def _members(self, node: Node | None) -> dict[str, Node]:
        if not isinstance(node, Tree):
            return {}
        self._left -= 1
        if self._left < 0:
            self.whole = False
            return {}
        return dict(listing(self._cas, node))

    def _count(self, word: str, path: str) -> None:
        self.counts[word] += 1
        # What describes a package changes with it, and is told as that package.
        if len(self.named) <= SHOWN and f"{_DIST_INFO}/" not in path:
            self.named.append(path)


def _file(cas: Reader, old: Node | None, new: Node | None) -> Iterator[str]:
    """Say what changed in a file: its lines, or how large it is and whether it can be run."""
    sides = [side for side in (old, new) if side is not None]
    if not all(isinstance(side, File) for side in sides):
        yield " → ".join(_kind(side) for side in (old, new))
        return
    files = [side if isinstance(side, File) else None for side in (old, new)]
    if files[0] and files[1] and files[0].executable != files[1].executable:
        yield "it can be run now" if files[1].executable else "it cannot be run any more"
    texts = [_text(cas, side) for side in files]
    if texts[0] is None or texts[1] is None:
        yield " → ".join(size(side.digest.size) if side else "(none)" for side in files)
    elif files[0] and files[1]:
        yield from _diff(texts[0], texts[1]) if texts[0] != texts[1] else ()
    else:
        count = len(texts[0]) + len(texts[1])
        yield f"{'+' if files[1] else '-'}{count} line{'' if count == 1 else 's'}"


def _kind(node: Node | None) -> str:
    match node:
        case None:
            return "(none)"
        case File(digest=digest):
            return f"a file of {size(digest.size)}"
        case Tree():
            return "a folder"
        case Symlink(target=target):
            return f"a symlink to {target}"


def _text(cas: Reader, file: File | None) -> list[str] | None:
    """Give the lines of a file; None for one that is no text, or too large."""
    if file is None:
        return []
    if file.digest.size > MAX_SIZE:
        return None
    data = cas.get(file.digest)
    try:
        return None if b"\0" in data else data.decode().splitlines()
    except UnicodeDecodeError:
        return None


def _diff(old: list[str], new: list[str]) -> Iterator[str]:
    """Give the first lines of a unified diff, under how many lines came and went."""
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    middles = [side[start : len(side) - end] for side in (old, new)]
    if max(map(len, middles)) > MAX_LINES:
        yield f"+{len(middles[1])} -{len(middles[0])} lines"
        return
    import difflib  # noqa: PLC0415 - most changes need none

    compared = difflib.unified_diff(middles[0], middles[1], n=0, lineterm="")
    changes = [line for line in compared if line[:2] != "@@"][2:]
    signs = [line[:1] for line in changes]
    yield f"+{signs.count('+')} -{signs.count('-')} lines, from line {start + 1} on"
    yield from (f"{line[:1]} {line[1:].rstrip()}" for line in changes[:DIFF_LINES])
    if len(changes) > DIFF_LINES:
        yield "…"
