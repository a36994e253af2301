"""The build engine: content-hashed actions, a store, a scheduler. It knows nothing of Python environments.

The names below are the public API. They are imported on first use, because the null build imports this package and
must not pay for the rest of it (design §6).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # known to type checkers; `typing` itself takes as long to import as Python takes to start
    from strata_engine.action import (
        Action as Action,
        Committed as Committed,
        Execution as Execution,
        Expansion as Expansion,
        Literal as Literal,
        Placement as Placement,
        Ref as Ref,
        Scope as Scope,
        Source as Source,
        SourceTree as SourceTree,
        Stored as Stored,
    )
    from strata_engine.build import Build as Build, BuildResult as BuildResult, open_build as open_build
    from strata_engine.console.choose import plain_console as plain_console
    from strata_engine.decision import Settings as Settings
    from strata_engine.digest import Digest as Digest
    from strata_engine.errors import (
        ActionError as ActionError,
        Diagnostic as Diagnostic,
        HostError as HostError,
        Place as Place,
        SpecError as SpecError,
        StrataError as StrataError,
    )
    from strata_engine.events import Outcome as Outcome
    from strata_engine.graph import ActionGraph as ActionGraph
    from strata_engine.rule import RuleContext as RuleContext, Target as Target, analyze as analyze
    from strata_engine.staleness import Reason as Reason, ReasonCode as ReasonCode
    from strata_engine.tree import (
        Artifact as Artifact,
        File as File,
        Store as Store,
        Symlink as Symlink,
        Tree as Tree,
        assemble as assemble,
        edit as edit,
        merge as merge,
    )
    from strata_engine.workspace import Workspace as Workspace

_EXPORTS = {
    "action": "Action Committed Execution Expansion Literal Placement Ref Scope Source SourceTree Stored",
    "build": "Build BuildResult open_build",
    "console.choose": "plain_console",
    "decision": "Settings",
    "digest": "Digest",
    "errors": "ActionError Diagnostic HostError Place SpecError StrataError",
    "events": "Outcome",
    "graph": "ActionGraph",
    "rule": "RuleContext Target analyze",
    "staleness": "Reason ReasonCode",
    "tree": "Artifact File Store Symlink Tree assemble edit merge",
    "workspace": "Workspace",
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names.split()}

__all__ = tuple(_MODULE_OF)


def __getattr__(name: str) -> object:
    import importlib  # noqa: PLC0415 - see above

    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
