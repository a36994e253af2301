"""The uv settings of a stack: `[tool.uv]` or `venvstacks.uv.toml`, and what of them holds for each layer.

It must not run uv, and must not know how layers are found: it is given their fields. Two forms of a layer's settings
are made: one that uv reads, with absolute paths and URLs as written, and one for keys, which is the same on every
machine and for every user: no credentials, and paths relative to the stack file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec
from packaging.utils import canonicalize_name

from strata_engine.action import Json
from strata_engine.errors import Place, SpecError
from strata_engine.logins import is_url
from strata_rules.spec.fields import Problems, Table, kind_of
from strata_rules.spec.near import did_you_mean
from strata_rules.spec.source import Document, decode_toml

UV_FILE = "venvstacks.uv.toml"
"""Where uv's settings are when the stack file has no `[tool.uv]`."""

EXCLUDE_NEWER = "UV_EXCLUDE_NEWER"
"""The variable that wins over the setting `exclude-newer`."""

_SECRET_NAME = re.compile(
    r"token|secret|password|passwd|credential|signature|(^|[-_])(api[-_]?key|key|auth|sig)$", re.IGNORECASE
)

_SPAN = re.compile(r"-?[pP][\d.,a-zA-Z]+|(?:\d+[\d.]*\s*[a-zA-Z]+[\s,]*)+(?:ago)?")
"""A span of time as uv reads it: `1 week`, `3 days 12h`, `P3D`."""

_HOST = re.compile(r"[\w.:-]+")

WRITE_LOGIN = "write `https://USER:PASSWORD@HOST/PATH`, with `@`, `:`, `/` and `%` percent-encoded in both"
"""What to do about a login that cannot be read."""


class UvIndex(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of uv's `index`."""

    url: str
    name: str | None = None
    default: bool = False
    explicit: bool = False
    settings: Mapping[str, Any] = {}
    """Its other settings, as written."""
    number: int = 0
    """Which entry it is."""

    @property
    def is_common(self) -> bool:
        """Whether every layer asks it, or only the packages that name it."""
        return self.default or not self.explicit

    def table(self) -> dict[str, Any]:
        """Give the entry as uv reads it."""
        flags = {"default": self.default, "explicit": self.explicit}
        name = {} if self.name is None else {"name": self.name}
        return {**name, "url": self.url, **{flag: True for flag, on in flags.items() if on}, **self.settings}


class UvConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The uv settings that all layers of a stack have in common."""

    settings: Mapping[str, Any] = {}
    """All settings but `index` and `sources`, as written."""
    indexes: tuple[UvIndex, ...] = ()
    sources: Mapping[str, str] = {}
    """Normalised distribution name → the named index that it comes from."""
    table: Table | None = None
    """Where they are written."""

    def place(self, setting: str, of: Literal["key", "value"] = "value") -> Place | None:
        """Locate a setting."""
        table = self.table
        return table.place(setting, of=of) if table is not None and setting in table.values else None

    @property
    def named(self) -> dict[str, UvIndex]:
        """The indexes that have names."""
        return {index.name: index for index in self.indexes if index.name is not None}

    @property
    def exclude_newer(self) -> str | None:
        """After when uploads are not seen, as written: a date or time, or a span such as `1 week`."""
        return self.settings.get("exclude-newer")

    @property
    def lock_time(self) -> datetime | None:
        """The time that a lock is said to be of, where `exclude-newer` is a date or time."""
        try:
            return datetime.fromisoformat(self.exclude_newer or "")
        except ValueError:
            return None


class LayerUvConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The uv settings of one layer."""

    root: Path
    """The folder that relative paths start from: the stack file's."""
    settings: Mapping[str, Any]
    indexes: tuple[UvIndex, ...]
    """In the order in which uv is to ask them."""
    sources: Mapping[str, str]

    def tool_uv(self) -> dict[str, Any]:
        """Give `[tool.uv]` for a project in any folder. It may hold credentials: it is for uv alone."""
        found: dict[str, Any] = dict(self.settings)
        if "find-links" in found:
            found["find-links"] = [_absolute(each, self.root) for each in found["find-links"]]
        if self.indexes:
            found["index"] = [index.table() | {"url": _absolute(index.url, self.root)} for index in self.indexes]
        if self.sources:
            found["sources"] = {name: {"index": index} for name, index in self.sources.items()}
        return found

    def canonical(self) -> dict[str, Json]:
        """Give the settings for a key: JSON without floats and nulls, credentials or this machine's paths."""
        tables = [
            _portable(index.table() | {"url": _relative(index.url, self.root)}, self.root) for index in self.indexes
        ]
        settings = {name: _portable(value, self.root) for name, value in self.settings.items()}
        if "find-links" in settings:
            settings["find-links"] = [_relative(each, self.root) for each in self.settings["find-links"]]
        return {"index": tables, "settings": settings, "sources": dict(self.sources)}

    def folders(self) -> tuple[Path, ...]:
        """List the local folders whose wheels uv may choose: their content belongs to the request."""
        places = [*self.settings.get("find-links", ()), *(index.url for index in self.indexes)]
        return tuple(dict.fromkeys(path for each in places if (path := local_path(each, self.root)) is not None))


class IndexConflict(NamedTuple):
    """Two layers that take one distribution from different indexes; `winner` is the one that comes first."""

    distribution: str
    winner: str
    winner_layer: str
    loser: str
    loser_layer: str


def merge_package_indexes(
    own: tuple[str, Mapping[str, str]],
    lower: Sequence[tuple[str, Mapping[str, str]]],
    overrides: Mapping[str, str],
) -> tuple[dict[str, str], list[IndexConflict]]:
    """Merge `package_indexes` of a layer and of those below it, by their names: own ones win, then the first below.

    Conflicts are listed but for those where the layer's `overrides` turn the index that yields into the other; what
    lower layers accepted holds for them alone.
    """
    merged: dict[str, tuple[str, str]] = {}
    conflicts = []
    for layer, indexes in lower:
        for name, index in indexes.items():
            winner, winner_layer = merged.setdefault(name, (index, layer))
            if winner not in (index, overrides.get(index)):
                conflicts.append(IndexConflict(name, winner, winner_layer, index, layer))
    layer, indexes = own
    for written, index in indexes.items():
        name = canonicalize_name(written)
        inherited, its_layer = merged.get(name, (index, layer))
        if index not in (inherited, overrides.get(inherited)):
            conflicts.append(IndexConflict(name, index, layer, inherited, its_layer))
    merged |= {canonicalize_name(written): (index, layer) for written, index in indexes.items()}
    return {name: index for name, (index, _) in merged.items()}, conflicts


class _Spec(Protocol):
    @property
    def priority_indexes(self) -> tuple[str, ...]: ...


class _Layer(Protocol):
    @property
    def spec(self) -> _Spec: ...
    @property
    def package_indexes(self) -> Mapping[str, str]: ...


class _Stack(Protocol):
    @property
    def root(self) -> Path: ...
    @property
    def uv(self) -> UvConfig: ...


def layer_config(
    stack: _Stack, layer: _Layer, *, no_index: bool = False, local_wheels: Iterable[Path] = ()
) -> LayerUvConfig:
    """Give a layer's settings: its priority indexes first, then explicit ones that it names, then the common ones."""
    config = stack.uv
    sources = dict(config.sources) | dict(layer.package_indexes)
    named = config.named
    priority = [msgspec.structs.replace(named[name], explicit=False) for name in layer.spec.priority_indexes]
    asked = set(sources.values())
    first = {index.name for index in priority}
    explicit = [index for index in config.indexes if not index.is_common and index.name in asked - first]
    common = [index for index in config.indexes if index.is_common and (index.name is None or index.name not in first)]
    settings = dict(config.settings) | {"cache-keys": [{"file": "pyproject.toml"}], "no-build": True}
    if no_index:
        settings["no-index"] = True
    if folders := [str(path) for path in local_wheels]:
        settings["find-links"] = [*settings.get("find-links", ()), *folders]
    return LayerUvConfig(root=stack.root, settings=settings, indexes=(*priority, *explicit, *common), sources=sources)


def read_uv_config(
    stack_file: Document,
    root: Path,
    read: Callable[[Path], bytes],
    probe: Callable[[Path], bool],
    env: Mapping[str, str],
    problems: Problems,
) -> UvConfig:
    """Read the settings of `[tool.uv]`, or of `venvstacks.uv.toml` beside the stack file where that table is absent."""
    tool = stack_file.values.get("tool")
    inline = tool.get("uv") if isinstance(tool, dict) else None
    if isinstance(inline, dict):
        table = Table(stack_file, ("tool", "uv"), "`tool.uv`", inline)
    elif inline is not None:
        place = stack_file.place(("tool", "uv"))
        problems.error("wrong-type", f"`tool.uv` must be a table, not {kind_of(inline)}", place)
        return UvConfig()
    elif probe(root / UV_FILE):
        try:
            document = decode_toml(read(root / UV_FILE), str(Path(stack_file.file).with_name(UV_FILE)))
        except SpecError as error:
            problems.errors += error.diagnostics
            return UvConfig()
        table = Table(document, (), f"`{UV_FILE}`", document.values)
    else:
        settings: dict[str, Any] = {}
        _exclude_newer(settings, None, env, problems)
        return UvConfig(settings=settings)
    settings = {name: value for name, value in table.values.items() if name not in ("index", "sources")}
    indexes = _indexes(table, problems)
    _check_arrays(table, problems)
    indexes = _find_places(table, settings, indexes, _Folders(root, probe), problems)
    _exclude_newer(settings, table, env, problems)
    sources = _sources(table, {index.name for index in indexes if index.name is not None}, problems)
    return UvConfig(settings=settings, indexes=indexes, sources=sources, table=table)


def _exclude_newer(settings: dict[str, Any], table: Table | None, env: Mapping[str, str], problems: Problems) -> None:
    """Let the variable win over the setting, and refuse what is no time: uv would leave out all settings with it."""
    name = "exclude-newer"
    hint = "write a date, a time or a span, such as `2025-06-01`, `2025-06-01T12:00:00Z` or `1 week`"
    variable, value = env.get(EXCLUDE_NEWER), settings.get(name)
    if variable:
        settings[name] = variable
        if not _is_time(variable):
            problems.error("bad-time", f"the variable `{EXCLUDE_NEWER}` is no time: `{variable}`", hint=hint)
    elif isinstance(value, date | datetime):
        settings[name] = value.isoformat()
    elif table is not None and value is not None and not (isinstance(value, str) and _is_time(value)):
        said = f"`{value}`" if isinstance(value, str) else kind_of(value)
        message = f"`{name}` of {table.who} must be a time, not {said}"
        problems.error("bad-time", message, table.place(name), hint=hint)


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return _SPAN.fullmatch(text) is not None
    return True


def _check_arrays(table: Table, problems: Problems) -> None:
    """Check the settings that we add to; uv checks all others."""
    for name in ("find-links", "constraint-dependencies"):
        given = table.values.get(name, [])
        if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
            problems.error("wrong-type", f"`{name}` of {table.who} must be an array of strings", table.place(name))


class _Folders(NamedTuple):
    """Where relative paths start from, and how to look whether something is there."""

    root: Path
    probe: Callable[[Path], bool]


def _find_places(
    table: Table, settings: dict[str, Any], indexes: tuple[UvIndex, ...], folders: _Folders, problems: Problems
) -> tuple[UvIndex, ...]:
    """Refuse folders that are not there and logins that cannot be read: uv would say so of a file of ours."""
    links = settings.get("find-links")
    if isinstance(links, list) and all(isinstance(each, str) for each in links):
        settings["find-links"] = [
            _find_place(table, each, ("find-links", number), folders, problems) for number, each in enumerate(links)
        ]
    return tuple(
        msgspec.structs.replace(
            index, url=_find_place(table, index.url, ("index", index.number, "url"), folders, problems)
        )
        for index in indexes
    )


def _find_place(table: Table, text: str, path: tuple[str | int, ...], folders: _Folders, problems: Problems) -> str:
    """Check one folder or URL; give it as it holds from the stack file's folder."""
    folder = local_path(text, folders.root)
    if folder is None:
        if not is_readable(text):
            message = f"a URL of `{path[0]}` has a login that cannot be read"
            problems.error("bad-index-url", message, table.place(*path), hint=WRITE_LOGIN)
        elif "://" in text and not is_url(text):
            message = f"`{text}` is not a URL: its host or port cannot be read"
            problems.error("bad-index-url", message, table.place(*path))
    elif not folders.probe(folder):
        # venvstacks lets uv resolve in a folder two below the stack file's, where such a path starts.
        meant = Path(os.path.normpath(folders.root / "_build" / "resolve" / text))
        if text.startswith("..") and folders.probe(meant):
            shown = Path(os.path.relpath(meant, folders.root)).as_posix()
            message = (
                f"`{text}` is not there, and was taken for `{shown}`: paths start from the folder of the stack file"
            )
            problems.warn("moved-folder", message, table.place(*path), hint=f"write `{shown}`")
            return shown
        message = f"there is no folder or page `{text}` to take wheels from"
        hint = "paths start from the folder of the stack file"
        problems.error("missing-folder", message, table.place(*path), hint=hint)
    return text


def _indexes(table: Table, problems: Problems) -> tuple[UvIndex, ...]:
    entries = table.values.get("index", [])
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        problems.error("wrong-type", f"`index` of {table.who} must be an array of tables", table.place("index"))
        return ()
    found: list[UvIndex] = []
    for number, entry in enumerate(entries):
        types: dict[str, type] = {"url": str, "name": str, "default": bool, "explicit": bool}
        wrong = [name for name, kind in types.items() if name in entry and type(entry[name]) is not kind]
        for name in wrong:
            message = f"`{name}` of a package index must be {'a string' if types[name] is str else '`true` or `false`'}"
            problems.error("wrong-type", f"{message}, not {kind_of(entry[name])}", table.place("index", number, name))
        if "url" not in entry:
            problems.error("missing-field", "a package index has no `url`", table.place("index", number, of="key"))
        elif not wrong:
            if entry.get("name") is not None and entry["name"] in {index.name for index in found}:
                message = f"there are two package indexes called `{entry['name']}`"
                problems.error("duplicate-index", message, table.place("index", number, "name"))
            known = {name: entry[name] for name in types if name in entry}
            others = {name: value for name, value in entry.items() if name not in types}
            found.append(UvIndex(**known, settings=others, number=number))
    return tuple(found)


def _sources(table: Table, known: set[str], problems: Problems) -> dict[str, str]:
    entries = table.values.get("sources", {})
    if not isinstance(entries, dict):
        problems.error("wrong-type", f"`sources` of {table.who} must be a table", table.place("sources"))
        return {}
    found: dict[str, str] = {}
    for written, source in entries.items():
        name = canonicalize_name(written)
        index = source.get("index") if isinstance(source, dict) else None
        if not isinstance(index, str):
            problems.error(
                "bad-source",
                f"the source of `{written}` must be a package index",
                table.place("sources", written),
                hint=f'write `{written} = {{ index = "NAME" }}`, with the name of an entry of `index`',
            )
            continue
        for key in (each for each in source if each != "index"):
            message = f"`{key}` of the source of `{written}` has no effect: only its index counts"
            problems.warn("no-effect", message, table.place("sources", written, key, of="key"), hint=f"remove `{key}`")
        if index not in known:
            problems.error(
                "unknown-index",
                f"the source of `{written}` references an unknown package index `{index}`",
                table.place("sources", written, "index"),
                hint=did_you_mean(index, known) or known_indexes(known),
            )
        elif name in found:
            message = f"there are multiple sources for `{name}` after name normalization"
            problems.error("duplicate-source", message, table.place("sources", written, of="key"))
        else:
            found[name] = index
    return found


def known_indexes(known: Iterable[str]) -> str:
    """Say which indexes can be referred to."""
    names = ", ".join(f"`{name}`" for name in sorted(known))
    return f"named indexes are {names}" if names else "add it with its name and url as an entry of `[[tool.uv.index]]`"


def without_credentials(url: str) -> str:
    """Give a URL without user information, and without query values that are secrets by their name.

    >>> without_credentials("https://user:pass@example.org/simple?token=1#frag")
    'https://example.org/simple#frag'
    """
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return re.sub(r"(?<=://)[^/]*@", "", url)
    query = "&".join(each for each in parts.query.split("&") if not _SECRET_NAME.search(each.partition("=")[0]))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))


def is_readable(url: str) -> bool:
    """Tell whether uv can tell the login in a URL from its host; one that it cannot read it quotes."""
    if "@" not in url:
        return True
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and _HOST.fullmatch(parts.hostname or "") is not None


def local_path(text: str, root: Path) -> Path | None:
    """Give the local folder or file that an index or `find-links` entry means; None where it is elsewhere."""
    if text.startswith("file://") and is_url(text):
        return Path(unquote(urlsplit(text).path))
    if "://" in text:
        return None
    return root / os.path.expanduser(text)  # noqa: PTH111 - Path's own raises where there is no such user


def _absolute(text: str, root: Path) -> str:
    path = None if "://" in text else local_path(text, root)
    return text if path is None else os.path.normpath(path)


def _relative(text: str, root: Path) -> str:
    path = local_path(text, root)
    if path is None:
        return without_credentials(text)
    try:
        return Path(os.path.relpath(path, root)).as_posix()
    except ValueError:
        return path.name


def _portable(value: Any, root: Path) -> Json:
    """Turn a TOML value into JSON that may be in a key."""
    match value:
        case bool() | int():
            return value
        case str():
            return (
                _relative(value, root)
                if value.startswith("file://") or Path(value).is_absolute()
                else without_credentials(value)
            )
        case list():
            return [_portable(each, root) for each in value]
        case dict():
            return {name: _portable(each, root) for name, each in value.items()}
        case datetime() | date() | time():
            return value.isoformat()
        case _:
            return str(value)
