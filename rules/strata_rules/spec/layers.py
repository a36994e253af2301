"""Layers that know those below them: references followed, orders found, platforms narrowed, indexes inherited.

It must not know how a stack file is read. The hard part is to go on after a problem without reporting its consequences
as well: a layer with a broken reference, and every layer above it, is left out of the checks that need what is below.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from strata_engine.errors import Place
from strata_rules.platforms import DEFAULT_LINUX_TARGET, DEFAULT_MACOSX_TARGET, PLATFORMS, parse_macosx_target
from strata_rules.spec.checks import Declared, folded
from strata_rules.spec.declared import FrameworkSpec, Kind, LayerSpec, RuntimeSpec
from strata_rules.spec.fields import Problems
from strata_rules.spec.linear import UnmergeableError, dependencies_first, merge
from strata_rules.spec.near import did_you_mean
from strata_rules.spec.uvconfig import merge_package_indexes

MACOSX_DEPLOYMENT_TARGET = "MACOSX_DEPLOYMENT_TARGET"
"""The variable that gives `macosx_target` where a layer does not."""


class Layer(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One layer, checked, with those below it. Compared by identity: a stack has each layer once."""

    kind: Kind
    name: str
    env_name: str
    """Its name among all layers: `NAME`, `framework-NAME` or `app-NAME`."""
    spec: LayerSpec
    base: Layer | None
    """The runtime that it stands on; None for a runtime."""
    below: tuple[Layer, ...]
    """The frameworks below it in the order of `sys.path`, without the runtime."""
    platforms: tuple[str, ...]
    """Its target platforms: its own choice of what the layers below have."""
    package_indexes: Mapping[str, str]
    """Normalised distribution → named index, its own and inherited."""
    macosx_target: str
    """The oldest macOS that its wheels must run on."""
    declared: Declared
    """The layer as the stack file has it."""

    @property
    def runtime(self) -> Layer:
        """The runtime: its own for a framework or application, itself for a runtime."""
        return self.base or self

    @property
    def lower(self) -> tuple[Layer, ...]:
        """All layers below it in the order of `sys.path`: the frameworks, then the runtime."""
        return self.below if self.base is None else (*self.below, self.base)

    @property
    def linux_target(self) -> str:
        """The C library that its Linux wheels may need, as `glibc@X.Y`."""
        return DEFAULT_LINUX_TARGET if self.spec.linux_target is None else self.spec.linux_target

    @property
    def implementation(self) -> str:
        """`cpython` or `pypy`."""
        return self._python[0]

    @property
    def version(self) -> str:
        """The version of Python that the stack file asks for, `X.Y.Z`."""
        return self._python[1]

    @property
    def python(self) -> str:
        """The version of Python, `X.Y`."""
        return ".".join(self.version.split(".")[:2])

    @property
    def _python(self) -> tuple[str, str]:
        spec = self.runtime.spec
        assert isinstance(spec, RuntimeSpec)
        implementation, _, version = spec.python_implementation.partition("@")
        return implementation, version

    def place(self, field: str | None = None, *path: str | int) -> Place:
        """Locate a field's value, or an element of it; the layer's header for a field that is not written."""
        return self.declared.place(field, *path)


def _check_names(layers: list[Declared], problems: Problems) -> None:
    """Refuse layers that would share a folder, on any file system."""
    seen: dict[str, Declared] = {}
    for layer in layers:
        if "name" in layer.bad or not layer.spec.name:
            continue
        env_name = layer.env_name
        first = seen.setdefault(folded(env_name), layer)
        if first is layer:
            continue
        line = first.place("name").line
        if first.env_name != env_name and first.env_name.casefold() == env_name.casefold():
            message = f"the names of {first.who} and {layer.who} differ in case alone"
            notes = ["they are one folder on file systems that ignore case", f"the first one is on line {line}"]
        elif first.env_name != env_name:
            message = f"the names of {first.who} and {layer.who} differ in how their letters are encoded alone"
            notes = ["they are one folder on file systems that normalize names", f"the first one is on line {line}"]
        elif first.kind == layer.kind:
            message = f"{layer.kind} names must be distinct: `{layer.spec.name}` is already defined"
            notes = [f"the first one is on line {line}"]
        else:
            message = f"{first.who} and {layer.who} would share the folder `{env_name}`"
            notes = [f"the first one is on line {line}"]
        problems.error("duplicate-name", message, layer.place("name"), notes=notes)
    _check_versioned(layers, seen, problems)


def _check_versioned(layers: list[Declared], seen: Mapping[str, Declared], problems: Problems) -> None:
    """Warn of a layer whose name is what a versioned one is deployed as, in some version of its lock."""
    for layer in layers:
        base, at, version = layer.env_name.rpartition("@")
        other = seen.get(folded(base)) if at and re.fullmatch(r"[1-9]\d*", version, re.ASCII) else None
        if other is not None and other.spec.versioned and not layer.spec.versioned:
            problems.warn(
                "shared-target",
                f"{other.who} is deployed as `{layer.env_name}` when its lock has version {version}, as {layer.who} is",
                layer.place("name"),
                hint="give one of them another name",
            )


def link_layers(layers: list[Declared], env: Mapping[str, str], problems: Problems) -> tuple[Layer, ...]:
    """Link all layers that can be linked, each after those that it needs."""
    _check_names(layers, problems)
    return _Linking(layers, env, problems).link()


class _Linking:
    """From declared layers to layers that know those below them."""

    def __init__(self, layers: list[Declared], env: Mapping[str, str], problems: Problems) -> None:
        self.problems = problems
        self.frameworks = {each.spec.name: each for each in reversed(layers) if each.kind == "framework"}
        self.declared = layers
        self.macosx_target = env.get(MACOSX_DEPLOYMENT_TARGET) or DEFAULT_MACOSX_TARGET
        self.linked: dict[str, Layer] = {}
        """By environment name."""

    def link(self) -> tuple[Layer, ...]:
        """Link all layers that can be linked, those below first."""
        self._check_environment()
        for each in self.declared:
            if each.kind == "runtime":
                self._runtime(each)
        below = {
            each.spec.name: each.spec.frameworks or () if isinstance(each.spec, FrameworkSpec) else ()
            for each in self.declared
            if each.kind == "framework"
        }
        order, cycles = dependencies_first(below)
        for way in cycles:
            self._report_cycle(way)
        self._check_order(below, {pair for way in cycles for pair in itertools.pairwise(way)})
        for name in order:
            self._layered(self.frameworks[name])
        for each in self.declared:
            if each.kind == "application":
                self._layered(each)
        return tuple(self.linked.values())

    def _check_order(self, below: Mapping[str, Sequence[str]], on_cycles: AbstractSet[tuple[str, str]]) -> None:
        """Refuse references to what comes later: venvstacks reads frameworks in the order of the file."""
        positions = {name: index for index, name in enumerate(below)}
        for name, lower in below.items():
            for index, each in enumerate(lower):
                if positions.get(each, -1) <= positions[name] or (name, each) in on_cycles:
                    continue
                later = self.frameworks[each]
                self.problems.error(
                    "forward-reference",
                    f"framework `{name}` references framework `{each}`, which is defined after it",
                    self.frameworks[name].place("frameworks", index),
                    notes=[f"`{each}` is defined on line {later.place('name').line}"],
                    hint=f"move the table of `{each}` above that of `{name}`",
                )

    def _check_environment(self) -> None:
        if all(each.spec.macosx_target is not None for each in self.declared):
            return
        try:
            parse_macosx_target(self.macosx_target)
        except ValueError as error:
            message = f"the variable `{MACOSX_DEPLOYMENT_TARGET}` is wrong: {error}"
            self.problems.error("bad-target", message, hint="unset it, or set it to a version such as `13.0`")

    def _runtime(self, each: Declared) -> None:
        platforms = (
            PLATFORMS if each.spec.platforms is None else tuple(p for p in PLATFORMS if p in each.spec.platforms)
        )
        self._add(each, None, (), platforms)

    def _layered(self, each: Declared) -> None:
        spec = each.spec
        assert isinstance(spec, FrameworkSpec)
        if {"runtime", "frameworks"} & each.bad:
            return
        if spec.runtime is not None and spec.frameworks is not None:
            message = f"{each.who} must specify a runtime or framework dependencies, not both"
            hint = "remove `runtime`: it is the one of the frameworks" if spec.frameworks else "remove `frameworks`"
            self.problems.error("runtime-and-frameworks", message, each.place("frameworks"), hint=hint)
        elif spec.runtime is not None:
            if self._knows(each, spec.runtime, "runtime", each.place("runtime")):
                self._on(each, self.linked.get(spec.runtime), ())
        elif not spec.frameworks:
            message = f"{each.who} must specify a runtime or at least one framework dependency"
            place = each.place("frameworks") if spec.frameworks is not None else each.place()
            hint = 'add `runtime = "NAME"` or `frameworks = ["NAME"]`'
            self.problems.error("no-runtime", message, place, hint=hint)
        else:
            self._on_frameworks(each, spec.frameworks)

    def _on_frameworks(self, each: Declared, names: tuple[str, ...]) -> None:
        known = [
            self._knows(each, name, "framework", each.place("frameworks", index)) for index, name in enumerate(names)
        ]
        repeated = [index for index, name in enumerate(names) if name in names[:index]]
        for index in repeated:
            message = f"{each.who} names the framework `{names[index]}` twice"
            self.problems.error("duplicate-framework", message, each.place("frameworks", index), hint="remove one")
        lower = [self.linked[key] for name in names if (key := f"framework-{name}") in self.linked]
        if not all(known) or repeated or len(lower) != len(names):
            return
        first = lower[0]
        for index, layer in enumerate(lower):
            if layer.runtime is not first.runtime:
                self.problems.error(
                    "inconsistent-runtimes",
                    f"the frameworks of {each.who} stand on different runtimes",
                    each.place("frameworks", index),
                    notes=[f"`{it.name}` requires runtime `{it.runtime.name}`" for it in (first, layer)],
                    hint="all frameworks of a layer must stand on one runtime",
                )
                return
        sequences = [[layer.name, *(it.name for it in layer.below)] for layer in lower]
        try:
            below = merge([*sequences, list(names)])
        except UnmergeableError as error:
            self._report_unmergeable(each, lower, error)
            return
        self._on(each, first.runtime, tuple(self.linked[f"framework-{name}"] for name in below))

    def _knows(self, each: Declared, name: str, kind: Kind, place: Place) -> bool:
        """Tell whether a layer of this kind has been declared, and say so if not."""
        names = [it.spec.name for it in self.declared if it.kind == kind and "name" not in it.bad]
        if name in names:
            return True
        hint = f"{kind}s are {', '.join(f'`{it}`' for it in names)}" if names else f"add it as a table `[[{kind}s]]`"
        others = [it for it in self.declared if it.spec.name == name]
        if others:
            hint = f"`{name}` is the name of {'an' if others[0].kind == 'application' else 'a'} {others[0].kind}"
        hint = did_you_mean(name, names) or hint
        self.problems.error(f"unknown-{kind}", f"{each.who} references unknown {kind} `{name}`", place, hint=hint)
        return False

    def _on(self, each: Declared, base: Layer | None, below: tuple[Layer, ...]) -> None:
        """Put a layer on those below it, unless something is wrong with one of those already."""
        if base is None:
            return
        offered = [set(layer.platforms) for layer in (*below, base)]
        common = tuple(name for name in PLATFORMS if all(name in each for each in offered))
        if each.spec.platforms is None or "platforms" in each.bad:
            self._add(each, base, below, common)
            return
        for index, name in enumerate(each.spec.platforms):
            if name in PLATFORMS and name not in common:
                lacking = [it for it in (*below, base) if name not in it.platforms]
                self.problems.error(
                    "unsupported-platform",
                    f"{each.who} specifies the target platform `{name}`, which lower layers do not support",
                    each.place("platforms", index),
                    notes=[f"{it.kind} `{it.name}` does not have it" for it in lacking],
                )
        self._add(each, base, below, tuple(name for name in common if name in each.spec.platforms))

    def _add(self, each: Declared, base: Layer | None, below: tuple[Layer, ...], platforms: tuple[str, ...]) -> None:
        # What the runtime says has reached every framework on it, so it is asked only where there is none between.
        lower = below or (() if base is None else (base,))
        merged, conflicts = merge_package_indexes(
            (each.who, each.spec.package_indexes),
            [(f"{it.kind} `{it.name}`", it.package_indexes) for it in lower],
            each.spec.index_overrides,
        )
        for conflict in conflicts:
            own = "package_indexes" in each.table.values
            self.problems.error(
                "index-conflict",
                f"{each.who} has inconsistent package index override(s) for `{conflict.distribution}`",
                each.place("package_indexes") if own else each.place(),
                notes=[
                    f"{conflict.winner_layer} takes it from `{conflict.winner}`",
                    f"{conflict.loser_layer} takes it from `{conflict.loser}`",
                ],
                hint=f'specify `index_overrides = {{ {conflict.loser} = "{conflict.winner}" }}` to accept',
            )
        layer = Layer(
            kind=each.kind,
            name=each.spec.name,
            env_name=each.env_name,
            spec=each.spec,
            base=base,
            below=below,
            platforms=platforms,
            package_indexes=merged,
            macosx_target=each.spec.macosx_target or self.macosx_target,
            declared=each,
        )
        self.linked.setdefault(each.env_name, layer)

    def _report_cycle(self, way: list[str]) -> None:
        first = self.frameworks[way[0]]
        names = first.spec.frameworks if isinstance(first.spec, FrameworkSpec) else None
        index = (names or ()).index(way[1])
        shown = " → ".join(f"`{name}`" for name in way)
        message = f"frameworks need each other: {shown}" if len(way) > 2 else f"{first.who} needs itself"
        hint = "remove one of these references"
        self.problems.error("dependency-cycle", message, first.place("frameworks", index), hint=hint)

    def _report_unmergeable(self, each: Declared, lower: list[Layer], error: UnmergeableError) -> None:
        owners = [*(f"framework `{layer.name}`" for layer in lower), each.who]
        notes = [
            f"{owners[index]} wants the order {', '.join(f'`{name}`' for name in left)}"
            for index, left in error.remaining.items()
            if len(left) > 1
        ]
        self.problems.error(
            "linearization-failed",
            f"no order of the frameworks of {each.who} suits all of them",
            each.place("frameworks"),
            notes=notes,
            hint="name the frameworks in one order everywhere: the first one is found first",
        )
