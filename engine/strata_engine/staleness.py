"""Why an action must run: reasons as data, found by comparing two keys structurally.

Because Actions, Commands and Directories are kept in the store, a key is its own explanation (design §3): nothing
else is recorded to explain a rebuild, so the explanation cannot disagree with the key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TypeAlias

import msgspec

from strata_engine import codec
from strata_engine.action import Action, Input, Ref, Source, SourceTree
from strata_engine.digest import Digest
from strata_engine.tree import File, Node, Store, Symlink, Tree, diff, listing, lookup


class ReasonCode(StrEnum):
    """The closed set of design §8."""

    FIRST_BUILD = "first-build"
    DEFINITION_CHANGED = "definition-changed"
    RULE_CHANGED = "rule-changed"
    TOOL_CHANGED = "tool-changed"
    PARAMETER_CHANGED = "parameter-changed"
    ENV_CHANGED = "env-changed"
    PLATFORM_CHANGED = "platform-changed"
    INPUT_CHANGED = "input-changed"
    INPUT_ADDED = "input-added"
    INPUT_REMOVED = "input-removed"
    UPSTREAM_CHANGED = "upstream-changed"
    OUTPUT_MISSING = "output-missing"
    OUTPUT_TAMPERED = "output-tampered"
    FORCED = "forced"
    VOLATILE = "volatile"
    SALT_CHANGED = "salt-changed"
    CACHE_ENTRY_MISSING = "cache-entry-missing"
    CACHE_ENTRY_CORRUPT = "cache-entry-corrupt"
    CACHE_BLOB_LOST = "cache-blob-lost"
    CACHE_UNTRUSTED = "cache-untrusted"
    EVICTED = "evicted"
    PREVIOUS_FAILED = "previous-failed"
    RACY_INPUT = "racy-input"


class Reason(msgspec.Struct, frozen=True):
    """One reason: what about which subject, from what to what."""

    reason: ReasonCode
    subject: str = ""
    """A workspace-relative path, `path#key`, variable, tool or label."""
    old: str | None = None
    new: str | None = None

    def __str__(self) -> str:
        text = f"{self.reason} {self.subject}".rstrip()
        if self.old is None and self.new is None:
            return text
        return f"{text}: {self.old or '(none)'} → {self.new or '(none)'}"


_Leaf: TypeAlias = str | tuple[str, ...]
"""A parameter's value: text, or a list of texts."""

_WORD = re.compile(r"[\w.-]+")

Describe: TypeAlias = Callable[[str], str]


def explain(store: Store, old: Digest, new: Digest, action: Action, describe: Describe) -> tuple[Reason, ...]:
    """List every difference between two keys of one label.

    `describe` turns a Source's path into the subject that a person knows. Raises `BlobLost` where the old Action is
    no longer kept.
    """
    before, after = (codec.decode_action(store.get(key)) for key in (old, new))
    reasons = _command_reasons(store, before.command_digest, after.command_digest, action)
    reasons += _platform_reasons(dict(before.platform), dict(after.platform))
    if before.salt != after.salt:
        reasons.append(Reason(ReasonCode.SALT_CHANGED, "salt", before.salt.decode(), after.salt.decode()))
    reasons += _input_reasons(store, Tree(before.input_root_digest), Tree(after.input_root_digest), action, describe)
    return tuple(reasons)


def _command_reasons(store: Store, old: Digest, new: Digest, action: Action) -> list[Reason]:
    if old == new:
        return []
    before, after = (codec.decode_command(store.get(digest)) for digest in (old, new))
    if len(before.arguments) != 4 or len(after.arguments) != 4 or before.arguments[1] != after.arguments[1]:
        sides = (" ".join(side.arguments[:2]) for side in (before, after))
        return [Reason(ReasonCode.DEFINITION_CHANGED, origin(action, "") or action.label, *sides)]
    reasons = []
    if before.arguments[2] != after.arguments[2]:
        reasons.append(Reason(ReasonCode.RULE_CHANGED, after.arguments[1], before.arguments[2], after.arguments[2]))
    reasons += _parameter_reasons(action, *(_flat(json.loads(side.arguments[3]) or None) for side in (before, after)))
    reasons += _compare(ReasonCode.ENV_CHANGED, dict(before.environment_variables), dict(after.environment_variables))
    return reasons


def _parameter_reasons(action: Action, old: dict[str, _Leaf], new: dict[str, _Leaf]) -> Iterator[Reason]:
    """Say each change of a parameter, of a list each element's, at the place where a person has written it."""
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        label = _begun(action.derived, name)
        if label is not None:
            yield Reason(ReasonCode.UPSTREAM_CHANGED, action.derived[label], _text(before), _text(after))
            continue
        subject = origin(action, name) or name
        pairs = [(_text(before), _text(after))]
        if isinstance(before, tuple) and isinstance(after, tuple):
            pairs = list(_elements(before, after)) or pairs
        for one, other in pairs:
            yield Reason(ReasonCode.PARAMETER_CHANGED, subject, one, other)


def origin(action: Action, parameter: str) -> str | None:
    """Give the subject that a person knows a parameter by; None where it has only its own name."""
    begun = _begun(action.origins, parameter)
    return action.origins[begun] + parameter[len(begun) :] if begun is not None else None


def _begun(known: Mapping[str, str], parameter: str) -> str | None:
    """Find the longest of the known paths that a parameter's path is, or begins with."""
    fits = [
        name for name in known if parameter == name or (parameter.startswith(name) and parameter[len(name)] in ".[")
    ]
    return max(fits, key=len, default=None)


def _elements(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[str | None, str | None]]:
    """Pair what left a list with what came into it, where both begin with the same word; nothing for a new order."""
    gone, come = ([each for each in one if each not in other] for one, other in ((old, new), (new, old)))
    for each in gone:
        partner = next((other for other in come if _word(other) == _word(each)), None)
        if partner is not None:
            come.remove(partner)
        yield each, partner
    for each in come:
        yield None, each


def _word(text: str) -> str:
    match = _WORD.match(text)
    return match[0].lower() if match else text


def _text(leaf: _Leaf | None) -> str | None:
    return json.dumps(leaf, ensure_ascii=False) if isinstance(leaf, tuple) else leaf


def _platform_reasons(old: dict[str, str], new: dict[str, str]) -> list[Reason]:
    def tools(side: dict[str, str], *, wanted: bool) -> dict[str, str]:
        return {name.removeprefix("tool:"): v for name, v in side.items() if name.startswith("tool:") is wanted}

    return [
        *_compare(ReasonCode.TOOL_CHANGED, tools(old, wanted=True), tools(new, wanted=True)),
        *_compare(ReasonCode.PLATFORM_CHANGED, tools(old, wanted=False), tools(new, wanted=False)),
    ]


def _compare(code: ReasonCode, old: dict[str, str], new: dict[str, str]) -> list[Reason]:
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return [Reason(code, name, old.get(name), new.get(name)) for name in names]


def _flat(value: object, path: str = "") -> dict[str, _Leaf]:
    """Give each leaf of a parameter value under its path; an empty container is a leaf, nothing at all is none."""
    if value is None:
        return {}
    if isinstance(value, dict) and value:
        return {
            k: v for name, inner in value.items() for k, v in _flat(inner, f"{path}.{name}" if path else name).items()
        }
    if isinstance(value, list) and value and not all(isinstance(inner, str) for inner in value):
        return {k: v for index, inner in enumerate(value) for k, v in _flat(inner, f"{path}[{index}]").items()}
    if isinstance(value, list):
        return {path: tuple(value)}
    return {path: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}


def _input_reasons(store: Store, old: Tree, new: Tree, action: Action, describe: Describe) -> list[Reason]:
    """Compare input roots, each difference under the declared input that it belongs to."""
    # Several inputs may be parts of one output: its change is one reason.
    reasons: dict[Reason, None] = {}
    for name in sorted(action.inputs):
        before, after = (lookup(store, side, name) for side in (old, new))
        if before != after:
            reasons |= dict.fromkeys(_differences(store, name, action.inputs[name], before, after, describe))
    return [*reasons, *_removed(store, old, new, action, "")]


def _differences(
    store: Store, name: str, source: Input, old: Node | None, new: Node | None, describe: Describe
) -> Iterator[Reason]:
    code = ReasonCode.INPUT_ADDED if old is None else ReasonCode.INPUT_CHANGED
    match source:
        case Ref(label=label):
            # The files that changed inside are the upstream action's own story; here one line says whose it is.
            code = ReasonCode.INPUT_ADDED if old is None else ReasonCode.UPSTREAM_CHANGED
            yield Reason(code, label, _short(old), _short(new))
        case SourceTree(path=path) if isinstance(old, Tree) and isinstance(new, Tree):
            for change in diff(store, old, new):
                inside = ReasonCode.INPUT_ADDED if change.old is None else code
                inside = ReasonCode.INPUT_REMOVED if change.new is None else inside
                yield Reason(inside, f"{describe(path)}/{change.path}", _short(change.old), _short(change.new))
        case Source(path=path) | SourceTree(path=path):
            yield Reason(code, describe(path), _short(old), _short(new))
        case _:
            yield Reason(code, name, _short(old), _short(new))


def _removed(store: Store, old: Tree, new: Tree, action: Action, base: str) -> Iterator[Reason]:
    """List what the old input root has beside all inputs that are declared now; their own changes are told already."""
    before, after = (dict(listing(store, side)) for side in (old, new))
    for name, node in before.items():
        path, there = base + name, after.get(name)
        if path in action.inputs or node == there:
            continue
        if isinstance(node, Tree) and isinstance(there, Tree):
            yield from _removed(store, node, there, action, f"{path}/")
        else:
            yield Reason(ReasonCode.INPUT_REMOVED, path, _short(node), None)


def _short(node: Node | None) -> str | None:
    """Name content in a few characters, as git does."""
    match node:
        case None:
            return None
        case File(digest=digest, executable=executable):
            return f"{digest.hash[:12]}+x" if executable else digest.hash[:12]
        case Tree(root=root):
            return root.hash[:12]
        case Symlink(target=target):
            return f"→ {target}"
