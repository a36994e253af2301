"""What one layer's table may hold, field by field, judged without looking at other layers.

It must not follow references: `spec` does. Each check notes what is wrong at the value's own place, and goes on.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from strata_engine.digest import is_sha256
from strata_engine.errors import Place
from strata_engine.logins import is_url
from strata_rules.layout import METADATA_FOLDER
from strata_rules.platforms import IMPLEMENTATIONS, PLATFORMS, parse_linux_target, parse_macosx_target
from strata_rules.spec.declared import (
    CATEGORIES,
    LEVELS,
    Category,
    Kind,
    LayerSpec,
    RuntimeSource,
    RuntimeSpec,
    ToolStrata,
)
from strata_rules.spec.fields import Problems, Table
from strata_rules.spec.near import did_you_mean
from strata_rules.spec.uvconfig import known_indexes

LABEL_NAMES = ("fetch", "wheel")
"""What labels call things that belong to no layer."""

TEMPORARY_PREFIX = ".strata-tmp-"
"""What an output is called until it is whole."""

_LONGEST = 200
"""Of a layer's folder, in bytes: file systems take 255, and locks and archives add to it."""

_NO_NAME = re.compile(r"\s*(?:-|\.{0,2}[/\\]|~|[\w+]+:|\.+$)|[^<>=!~;@]*(?:\.whl|\.tar\.gz|\.zip)\s*$")
"""What is no requirement, but a path, URL or option of an installer."""

_HOST = re.compile(r"(?:\[[\da-fA-F:.]+\]|[^@:\[\]]*)(?::\d{1,5})?")
"""A host and perhaps a port, and no login."""

_VERSION = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}(?:(?:a|b|rc)\d{1,3})?", re.ASCII)


class Declared(NamedTuple):
    """A layer's table as read: its struct, and which fields already have a problem."""

    category: Category
    table: Table
    spec: LayerSpec
    bad: frozenset[str]

    @property
    def kind(self) -> Kind:
        """Which kind of layer it is."""
        return self.category.kind

    @property
    def env_name(self) -> str:
        """Its name among all layers: `NAME`, `framework-NAME` or `app-NAME`."""
        return f"{self.category.prefix}{self.spec.name}"

    @property
    def who(self) -> str:
        """The layer, as messages call it."""
        return self.table.who

    def place(self, field: str | None = None, *path: str | int) -> Place:
        """Locate a field's value, or an element of it; the table's header for a field that is not written."""
        if field is None:
            return self.table.place(of="key")
        if field == "python_implementation" and field not in self.table.values:
            field = "fully_versioned_name"
        return self.table.place(field, *path)


def check_layer(layer: Declared, problems: Problems) -> None:
    """Check the fields that need no other layer."""
    if "name" not in layer.bad:
        check_name(layer, problems)
    if "requirements" not in layer.bad:
        for index, text in enumerate(layer.spec.requirements):
            _check_requirement(layer, index, text, problems)
    for index, platform in enumerate(layer.spec.platforms or ()):
        if platform not in PLATFORMS:
            problems.error(
                "unknown-platform",
                f"{layer.who} specifies an invalid target platform `{platform}`",
                layer.place("platforms", index),
                hint=did_you_mean(platform, PLATFORMS) or f"target platforms are {_listed(PLATFORMS)}",
            )
    for field, parse in (("linux_target", parse_linux_target), ("macosx_target", parse_macosx_target)):
        if (text := getattr(layer.spec, field)) is not None:
            try:
                parse(text)
            except ValueError as error:
                problems.error("bad-target", f"{layer.who}: {error}", layer.place(field))
    if isinstance(layer.spec, RuntimeSpec) and "python_implementation" not in layer.bad:
        _check_python(layer, layer.spec.python_implementation, problems)


def folded(name: str) -> str:
    """Give what is equal for names that some file system takes for one: it ignores case, or how letters are encoded."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def check_name(layer: Declared, problems: Problems) -> None:
    """Refuse names that cannot be a folder's, or that mean something else."""
    name, folder, place = layer.spec.name, layer.env_name, layer.place("name")
    wrong = None
    if not name:
        wrong = "is empty"
    elif folder in (".", ".."):
        wrong = "is a folder of its own"
    elif found := next((each for each in "/\\" if each in name), None):
        wrong = f"contains `{found}`"
    elif any(ord(each) < 32 or 127 <= ord(each) < 160 for each in name):
        wrong = "contains a control character"
    elif len(folder.encode()) > _LONGEST:
        wrong = f"is longer than {_LONGEST} bytes"
    if wrong:
        article = "an" if layer.kind == "application" else "a"
        shown = name if name.isprintable() else ascii(name)[1:-1]
        shown = f"{shown[:40]}…" if len(shown) > 60 else shown
        message = f"the name of {f'{layer.kind} `{shown}`' if name else f'{article} {layer.kind}'} {wrong}"
        hint = "a layer's name becomes the name of a folder: letters, digits, `-`, `_`, `.` and `@` are good"
        problems.error("bad-name", message, place, hint=hint)
    elif reserved := _reserved(folder):
        hint = f"choose another name, such as `python-{name.strip('._')}`"
        problems.error("reserved-name", reserved, place, hint=hint)
    elif layer.kind == "runtime":
        for key, _, prefix, _ in CATEGORIES:
            if prefix and name.startswith(prefix):
                message = f"the name of a runtime must not start with `{prefix}`: the folders of {key} do"
                problems.error("reserved-name", message, place, hint="choose another name")


def _reserved(folder: str) -> str | None:
    """Say why no layer may have this name, which only runtimes come to: all others have a prefix."""
    if folder in LABEL_NAMES:
        return f"no runtime may be called `{folder}`: labels such as `{folder}/…` mean something else"
    if folded(folder) == METADATA_FOLDER:
        return f"no runtime may be called `{folder}`: the metadata of published layers is in a folder of that name"
    if folded(folder).startswith(TEMPORARY_PREFIX):
        return f"the name of a runtime must not start with `{TEMPORARY_PREFIX}`: outputs that are being written do"
    return None


def _check_requirement(layer: Declared, index: int, text: str, problems: Problems) -> None:
    place = layer.place("requirements", index)
    only = (
        "a layer is made of wheels: write `NAME`, `NAME>=1.0` or `NAME[EXTRA]==1.0` for what a package index serves, "
        "or `NAME @ URL` with the `file://` or `https://` URL of one wheel; build a wheel of anything else"
    )
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        if _NO_NAME.match(text):
            problems.error("url-requirement", f"{layer.who} requires a path, URL or option", place, hint=only)
            return
        said = str(error).split("\n", maxsplit=1)[0]
        problems.error(
            "bad-requirement",
            f"{layer.who} uses invalid requirement syntax: {said[:1].lower()}{said[1:]}",
            _inside(place, text, error),
            hint="write it as PEP 508 says, such as `numpy>=2` or `requests[socks]; python_version < '3.13'`",
        )
    else:
        if requirement.url is not None:
            if why := _no_wheel_url(requirement.name, requirement.url):
                message = f"{layer.who} takes `{requirement.name}` from a URL {why}"
                problems.error("url-requirement", message, place, hint=only)
        elif requirement.name.endswith((".whl", ".tar.gz", ".zip")):
            problems.error("url-requirement", f"{layer.who} requires the file `{text}`", place, hint=only)


def _no_wheel_url(name: str, url: str) -> str:
    """Say why a URL is not that of a wheel of a distribution; nothing where it is."""
    if not is_url(url):
        return "whose host or port cannot be read"
    parts = urlsplit(url)
    if parts.scheme not in {"file", "http", "https"}:
        return f"of the kind `{parts.scheme}:`"
    if parts.scheme == "file" and (parts.netloc not in {"", "localhost"} or not parts.path.startswith("/")):
        return "that is not the path of a file"
    if not _HOST.fullmatch(parts.netloc):
        return "with a login, which would be written to the lock"
    file = unquote(parts.path).rpartition("/")[2]
    try:
        found = parse_wheel_filename(file)[0]
    except InvalidWheelFilename:
        return "that does not name a wheel"
    return "" if found == canonicalize_name(name) else f"of a wheel of `{found}`"


def _inside(place: Place, text: str, error: InvalidRequirement) -> Place:
    """Point at the part of a requirement that is wrong, where its text stands in the file as it is meant."""
    start, end = getattr(error.__cause__, "span", (0, 0))
    quoted = place.text is not None and place.text[place.column : place.column + len(text)] == text
    if not quoted or start >= len(text):
        return place
    return place._replace(column=place.column + 1 + start, length=max(1, min(end, len(text)) - start))


def _check_python(layer: Declared, text: str, problems: Problems) -> None:
    place = layer.place("python_implementation")
    name, at, version = text.partition("@")
    if name not in IMPLEMENTATIONS:
        problems.error(
            "unknown-implementation",
            f"{layer.who} wants an unknown Python implementation `{name}`",
            place,
            hint=did_you_mean(name, IMPLEMENTATIONS) or f"known implementations are {_listed(IMPLEMENTATIONS)}",
        )
    elif not at or not _VERSION.fullmatch(version):
        example = f"{name}@{version}.4" if re.fullmatch(r"\d+\.\d+", version, re.ASCII) else f"{name}@3.12.9"
        problems.error(
            "bad-python-version",
            f"{layer.who} has no full Python version in `{text}`",
            place,
            hint=f"write all three parts of the version, such as `{example}`",
        )


def check_indexes(layer: Declared, known: Mapping[str, Any], problems: Problems) -> None:
    """Check the references to named package indexes."""
    seen: dict[str, str] = {}
    uses: list[tuple[Place, str]] = []
    for written, index in layer.spec.package_indexes.items():
        uses.append((layer.place("package_indexes", written), index))
        first = seen.setdefault(canonicalize_name(written), written)
        if first != written:
            message = (
                f"{layer.who} specifies multiple sources for `{canonicalize_name(written)}` after name normalization"
            )
            place = layer.table.place("package_indexes", written, of="key")
            problems.error("duplicate-source", message, place, hint=f"remove `{first}` or `{written}`")
    uses += [(layer.place("priority_indexes", number), each) for number, each in enumerate(layer.spec.priority_indexes)]
    for place, index in uses:
        if index not in known:
            message = f"{layer.who} references an unknown package index `{index}`"
            problems.error("unknown-index", message, place, hint=did_you_mean(index, known) or known_indexes(known))
    for loser, winner in layer.spec.index_overrides.items():
        for index in (each for each in (loser, winner) if each not in known):
            message = f"`index_overrides` of {layer.who} names an unknown package index `{index}`"
            place = layer.table.place("index_overrides", loser, of="key" if index == loser else "value")
            problems.warn("unknown-index", message, place, hint=did_you_mean(index, known) or known_indexes(known))


def check_strata(strata: ToolStrata, table: Table, runtimes: list[str], problems: Problems) -> None:
    """Check `[tool.strata]`."""
    for name, source in strata.runtimes.items():
        if name not in runtimes:
            place = table.place("runtimes", name, of="key")
            hint = did_you_mean(name, runtimes) or (f"runtimes are {_listed(runtimes)}" if runtimes else None)
            problems.error(
                "unknown-runtime", f"`tool.strata.runtimes` names an unknown runtime `{name}`", place, hint=hint
            )
        if isinstance(table.values["runtimes"].get(name), dict):
            _check_runtime_source(name, source, table, problems)
    level, format_ = strata.archive.level, strata.archive.format or "tar.xz"
    if level is not None and level not in LEVELS[format_]:
        levels = LEVELS[format_]
        hint = f"levels are {levels.start} to {levels.stop - 1}" if levels else "remove `level`"
        message = f"the archive format `{format_}` has no level {level}"
        problems.error("bad-level", message, table.place("archive", "level"), hint=hint)


def _check_runtime_source(name: str, source: RuntimeSource, table: Table, problems: Problems) -> None:
    def place(*path: str | int) -> Place:
        return table.place("runtimes", name, *path)

    _check_providers(name, source, place, problems)
    _check_urls(name, source.url, place, problems)
    if "archive" in source.providers:
        for field in ("url", "sha256"):
            if getattr(source, field) is None and field not in table.values["runtimes"][name]:
                message = f"the provider `archive` of runtime `{name}` needs `{field}`"
                problems.error("missing-field", message, table.place("runtimes", name, of="key"))
    for field in ("url", "sha256"):
        value = getattr(source, field)
        for platform, each in value.items() if isinstance(value, Mapping) else ():
            if platform not in PLATFORMS:
                hint = did_you_mean(platform, PLATFORMS) or f"target platforms are {_listed(PLATFORMS)}"
                message = f"`{field}` of runtime `{name}` has an invalid target platform `{platform}`"
                problems.error(
                    "unknown-platform", message, table.place("runtimes", name, field, platform, of="key"), hint=hint
                )
            if field == "sha256" and not is_sha256(each):
                problems.error("bad-sha256", "a SHA-256 is 64 lower-case hexadecimal digits", place(field, platform))
        if field == "sha256" and isinstance(value, str) and not is_sha256(value):
            problems.error("bad-sha256", "a SHA-256 is 64 lower-case hexadecimal digits", place(field))
    if source.accept is not None:
        try:
            SpecifierSet(source.accept)
        except InvalidSpecifier:
            message = f"`accept` of runtime `{name}` is not a version specifier"
            problems.error("bad-specifier", message, place("accept"), hint='write it as `">=3.11,<3.15"`')
        if "local" not in source.providers:
            message = f"`accept` of runtime `{name}` has no effect: only the provider `local` may give another version"
            problems.warn("no-effect", message, table.place("runtimes", name, "accept", of="key"))


def _check_providers(name: str, source: RuntimeSource, place: Callable[..., Place], problems: Problems) -> None:
    if not source.providers:
        problems.error("bad-provider", f"runtime `{name}` has an empty list of providers", place("provider"))
    if "conda" in source.providers:
        which = () if isinstance(source.provider, str) else (source.providers.index("conda"),)
        message = f"the provider `conda` of runtime `{name}` is not available yet"
        hint = "providers are `pbs`, `archive` and `local`"
        problems.error("unavailable-provider", message, place("provider", *which), hint=hint)


def _check_urls(
    name: str, value: str | Mapping[str, str] | None, place: Callable[..., Place], problems: Problems
) -> None:
    urls = {(): value} if isinstance(value, str) else {(platform,): url for platform, url in (value or {}).items()}
    for where, url in urls.items():
        if not url.startswith(("https://", "http://", "file://")) or not is_url(url):
            message = f"`url` of runtime `{name}` is not the URL of an archive"
            hint = "it begins with `https://`, `http://` or `file://`"
            problems.error("bad-url", message, place("url", *where), hint=hint)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
