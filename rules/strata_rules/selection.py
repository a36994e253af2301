"""What a command line selects of a stack: layers by pattern, an application by name, labels.

Pure but for `wanted_labels`, which may have to look what locks select before a wheel's label means anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from strata_engine.errors import SpecError
from strata_engine.graph import ActionGraph
from strata_rules.spec.load import Layer, Stack
from strata_rules.spec.source import did_you_mean


def selected_layers(stack: Stack, patterns: Sequence[str]) -> list[Layer]:
    """List the layers whose environment name matches a pattern; all without patterns.

    Raises SpecError for a pattern that selects none.
    """
    names = [layer.env_name for layer in stack.layers]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            hint = did_you_mean(pattern, names) or f"layers are {', '.join(f'`{name}`' for name in names)}"
            raise SpecError.of("unmatched-pattern", f"no layer matches `{pattern}`", hint=hint)
    return [
        layer
        for layer in stack.layers
        if not patterns or any(fnmatchcase(layer.env_name, pattern) for pattern in patterns)
    ]


def application(stack: Stack, name: str) -> Layer:
    """Find an application by its name, with or without `app-`. Raises SpecError."""
    names = {layer.name: layer for layer in stack.of("application")}
    layer = names.get(name) or names.get(name.removeprefix("app-"))
    if layer is None:
        hint = did_you_mean(name, names) or f"applications are {', '.join(f'`{known}`' for known in names)}"
        raise SpecError.of("unknown-application", f"there is no application `{name}`", hint=hint)
    return layer


def wanted_labels(
    stack: Stack, graph: ActionGraph, labels: Sequence[str], expand: Callable[[Iterable[str]], object]
) -> list[str]:
    """Complete labels as users give them: a layer is its Link, a pattern all that it matches. Raises SpecError.

    `expand` makes the graph grow by all that is known below the labels that it is given.
    """
    names = {layer.env_name for layer in stack.layers}
    if not names.union(graph.labels()).issuperset(labels):
        # Wheels, and what is made of them, are known only once locks are.
        expand([label for label in graph.labels() if label.endswith("/link")])
    known = graph.labels()
    found: list[str] = []
    for label in labels:
        if label in names and f"{label}/link" in known:
            found.append(f"{label}/link")
        elif label in known:
            found.append(label)
        elif matching := [name for name in known if fnmatchcase(name, label)]:
            found += matching
        else:
            hint = did_you_mean(label, [*names, *known]) or "`strata graph show` lists the labels"
            raise SpecError.of("unknown-label", f"nothing in this stack is called `{label}`", hint=hint)
    return list(dict.fromkeys(found))
