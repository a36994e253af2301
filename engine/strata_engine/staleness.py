"""Why an action must run: reasons as data, found by comparing two keys structurally.

Because Actions, Commands and Directories are kept in the store, a key is its own explanation (design §3): nothing
else is recorded to explain a rebuild, so the explanation cannot disagree with the key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from enum import StrEnum
from typing import TypeAlias

import msgspec

from strata_engine import codec
from strata_engine.action import Action, Input, Ref, Source, SourceTree
from strata_engine.digest import Digest
from strata_engine.tree import File, Node, Reader, Symlink, Tree, diff, listing, lookup


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
_NUMBER = re.compile(r"^\d+-")

Describe: TypeAlias = Callable[[str], str]


def explain(
    store: Reader, old: Digest, new: Digest, action: Action, describe: Describe, removed: Describe = str
) -> tuple[Reason, ...]:
    """List every difference between two keys of one label.

    `describe` turns a Source's path into the subject that a person knows, `removed` the name of an input that is gone.
    Raises `BlobLost` where the old Action is no longer kept.
    """
    before, after = (codec.decode_action(store.get(key)) for key in (old, new))
    commands = [codec.decode_command(store.get(side.command_digest)) for side in (before, after)]
    reasons, reshaped = _command_reasons(commands[0], commands[1], action)
    reasons += _platform_reasons(dict(before.platform), dict(after.platform), reshaped=reshaped)
    if before.salt != after.salt:
        reasons.append(Reason(ReasonCode.SALT_CHANGED, "salt", before.salt.decode(), after.salt.decode()))
    roots = _Roots(store, Tree(before.input_root_digest), Tree(after.input_root_digest), reshaped=reshaped)
    reasons += _input_reasons(roots, action, describe, removed)
    return tuple(reasons)


def _command_reasons(before: codec.Command, after: codec.Command, action: Action) -> tuple[list[Reason], bool]:
    """Compare commands; also tell whether what the action is made of at all has changed.

    Then what only one side has belongs to that change: what a new version of a rule wants to know is no change of
    its own, nor is all that an action looks at once it is to do anything.
    """
    if before == after:
        return [], False
    if len(before.arguments) != 4 or len(after.arguments) != 4 or before.arguments[1] != after.arguments[1]:
        sides = (" ".join(side.arguments[:2]) for side in (before, after))
        return [Reason(ReasonCode.DEFINITION_CHANGED, origin(action, "") or action.label, *sides)], True
    params: list[dict[str, object]] = [json.loads(side.arguments[3]) for side in (before, after)]
    reasons = []
    reshaped = before.arguments[2] != after.arguments[2]
    if reshaped:
        reasons.append(Reason(ReasonCode.RULE_CHANGED, after.arguments[1], before.arguments[2], after.arguments[2]))
    began = bool(action.presence) and len({bool(side.get(action.presence)) for side in params}) > 1
    reshaped |= began
    if reshaped:
        both = {*(params[0].keys() & params[1].keys()), action.presence}
        params = [{name: value for name, value in side.items() if name in both} for side in params]
    changed = {name for name in params[0].keys() & params[1].keys() if params[0][name] != params[1][name]}
    reasons += _parameter_reasons(action, _flat(params[0] or None), _flat(params[1] or None), changed)
    environments = (dict(side.environment_variables) for side in (before, after))
    # Which variables are set is never a rule's doing.
    reasons += _compare(ReasonCode.ENV_CHANGED, *environments, reshaped=began)
    return reasons, reshaped


def _parameter_reasons(
    action: Action, old: dict[str, _Leaf], new: dict[str, _Leaf], changed: Set[str]
) -> Iterator[Reason]:
    """Say each change of a parameter, of a list each element's, at the place where a person has written it."""
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        leader = _begun(action.attends, name)
        if leader is not None and action.attends[leader] in changed and (before is None or after is None):
            continue
        if origin(action, name) in action.members.values():
            # The inputs that it names tell it.
            continue
        label = _begun(action.derived, name)
        if label is not None and (origin(action, name) is None or (before is not None and after is not None)):
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


def _platform_reasons(old: dict[str, str], new: dict[str, str], *, reshaped: bool) -> list[Reason]:
    def tools(side: dict[str, str], *, wanted: bool) -> dict[str, str]:
        return {name.removeprefix("tool:"): v for name, v in side.items() if name.startswith("tool:") is wanted}

    return [
        *_compare(ReasonCode.TOOL_CHANGED, tools(old, wanted=True), tools(new, wanted=True), reshaped=reshaped),
        *_compare(ReasonCode.PLATFORM_CHANGED, tools(old, wanted=False), tools(new, wanted=False), reshaped=reshaped),
    ]


def _compare(code: ReasonCode, old: dict[str, str], new: dict[str, str], *, reshaped: bool) -> list[Reason]:
    known = old.keys() & new.keys() if reshaped else old.keys() | new.keys()
    names = sorted(name for name in known if old.get(name) != new.get(name))
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


class _Roots:
    """Two input roots, of which all is compared that counts."""

    def __init__(self, store: Reader, old: Tree, new: Tree, *, reshaped: bool) -> None:
        self.store = store
        self.old = old
        self.new = new
        tops = [{name for name, _ in listing(store, side)} for side in (old, new)] if old != new else [set(), set()]
        self._left_out = tops[0] ^ tops[1] if reshaped else set()

    def counts(self, name: str) -> bool:
        """Tell whether an input is to be compared, by its name."""
        return name.partition("/")[0] not in self._left_out


def _input_reasons(roots: _Roots, action: Action, describe: Describe, removed: Describe) -> list[Reason]:
    """Compare input roots, each difference under the declared input that it belongs to."""
    if roots.old == roots.new:
        return []
    # Several inputs may be parts of one output: its change is one reason.
    reasons: dict[Reason, None] = {}
    renamed: dict[str, str | None] = {}
    for group, subject in action.members.items():
        if roots.counts(group):
            before, after = (_members(roots.store, side, group) for side in (roots.old, roots.new))
            reasons |= dict.fromkeys(_member_reasons(subject, (*before,), (*after,)))
            renamed |= {f"{group}/{name}": before.get(member) for member, name in after.items()}
    for name in sorted(action.inputs):
        if not roots.counts(name):
            continue
        former = _former_name(name, action.members, renamed)
        if former is None:
            continue
        before_node, after_node = lookup(roots.store, roots.old, former), lookup(roots.store, roots.new, name)
        if before_node != after_node:
            found = _differences(roots.store, name, action.inputs[name], before_node, after_node, describe)
            reasons |= dict.fromkeys(found)
    return [*reasons, *_removed(roots, roots.old, roots.new, action, removed)]


def _member_reasons(subject: str, old: tuple[str, ...], new: tuple[str, ...]) -> Iterator[Reason]:
    """Say who left a list of inputs or came into it, or that it has another order."""
    yield from (Reason(ReasonCode.INPUT_REMOVED, subject, each, None) for each in old if each not in new)
    yield from (Reason(ReasonCode.INPUT_ADDED, subject, None, each) for each in new if each not in old)
    if old != new and {*old} == {*new}:
        yield Reason(ReasonCode.INPUT_CHANGED, subject, _text(old), _text(new))


def _members(store: Reader, root: Tree, group: str) -> dict[str, str]:
    """List who is in a group of inputs, in order, each with the name of its entry: `0001-NAME`, `0001-NAME.json`."""
    folder = lookup(store, root, group)
    names = [name for name, _ in listing(store, folder)] if isinstance(folder, Tree) else []
    return {_NUMBER.sub("", name).removesuffix(".json"): name for name in names}


def _former_name(name: str, groups: Mapping[str, str], renamed: Mapping[str, str | None]) -> str | None:
    """Give the name that an input had, which in a group has a number; None for a new member: that is told already."""
    group = next((group for group in groups if name.startswith(f"{group}/")), None)
    if group is None:
        return name
    entry, slash, rest = name[len(group) + 1 :].partition("/")
    former = renamed.get(f"{group}/{entry}")
    return f"{group}/{former}{slash}{rest}" if former is not None else None


def _differences(
    store: Reader, name: str, source: Input, old: Node | None, new: Node | None, describe: Describe
) -> Iterator[Reason]:
    code = ReasonCode.INPUT_ADDED if old is None else ReasonCode.INPUT_CHANGED
    match source:
        case Ref(label=label):
            # The files that changed inside are the upstream action's own story; here one line says whose it is.
            code = ReasonCode.INPUT_ADDED if old is None else ReasonCode.UPSTREAM_CHANGED
            yield Reason(code, label, short_name(old), short_name(new))
        case SourceTree(path=path) if isinstance(old, Tree) and isinstance(new, Tree):
            for change in diff(store, old, new):
                inside = ReasonCode.INPUT_ADDED if change.old is None else code
                inside = ReasonCode.INPUT_REMOVED if change.new is None else inside
                yield Reason(inside, f"{describe(path)}/{change.path}", short_name(change.old), short_name(change.new))
        case Source(path=path) | SourceTree(path=path):
            yield Reason(code, describe(path), short_name(old), short_name(new))
        case _:
            yield Reason(code, name, short_name(old), short_name(new))


def _removed(
    roots: _Roots, old: Tree, new: Tree, action: Action, removed: Describe, base: str = ""
) -> Iterator[Reason]:
    """List what the old input root has beside all inputs that are declared now; their own changes are told already."""
    before, after = (dict(listing(roots.store, side)) for side in (old, new))
    for name, node in before.items():
        path, there = base + name, after.get(name)
        if path in action.inputs or path in action.members or node == there or not roots.counts(path):
            continue
        if isinstance(node, Tree) and isinstance(there, Tree):
            yield from _removed(roots, node, there, action, removed, f"{path}/")
        else:
            yield Reason(ReasonCode.INPUT_REMOVED, removed(path), short_name(node), None)


def short_name(node: Node | None) -> str | None:
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
