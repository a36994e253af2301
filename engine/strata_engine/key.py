"""The key of an action: the digest of its REAPI `Action`.

What is in a key, and what is not:

=====================================  ==========================================================================
in                                     where
=====================================  ==========================================================================
mnemonic, rule version, parameters     `Command.arguments = ["strata", MNEMONIC, "vN", canonical JSON]`
allowlisted environment                `Command.environment_variables`
content and executable bit of inputs   `Action.input_root_digest`, one entry per named input
tools, host properties                 `Action.platform`, only where the bytes depend on them
operator's epoch                       `Action.salt`
-------------------------------------  --------------------------------------------------------------------------
not in: labels, descriptions, places, absolute paths, URLs, credentials, pools, times, owners, file modes
=====================================  ==========================================================================

A fixed-output action is `["fixed-output", "sha256:HEX"]` over an empty input root and nothing else, so that equal
bytes are one action wherever they come from (Nix's fixed-output derivations; REAPI's remote asset `checksum.sri`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from strata_engine import codec
from strata_engine.action import Action, Json, Scope
from strata_engine.digest import Digest
from strata_engine.errors import InternalError
from strata_engine.tree import Node, Store, assemble, directory_of


class Key(NamedTuple):
    """An action's key, with the blobs that explain it; the Directories of the input root are in the store already."""

    digest: Digest
    action: bytes
    command: bytes


def canonical_json(value: Mapping[str, Json]) -> str:
    """Give the one text of a parameter value: sorted keys, no spaces, no floats, no nulls."""
    _check(value, "params")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _check(value: object, where: str) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise InternalError.of("bad-parameter", f"{where}: a name is not text: {name!r}")
            _check(inner, f"{where}.{name}")
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            _check(inner, f"{where}[{index}]")
    elif not isinstance(value, (str, int)):
        raise InternalError.of("bad-parameter", f"{where}: {type(value).__name__} has no canonical text")


def compute(action: Action, inputs: Mapping[str, Node], store: Store, salt: bytes = b"") -> Key:
    """Compute the key of an action whose inputs have these contents."""
    platform: tuple[tuple[str, str], ...] = ()
    if action.scope is Scope.FIXED_OUTPUT:
        # Such a result proves itself: no epoch disowns it.
        salt = b""
        command = codec.Command(("fixed-output", f"sha256:{action.fixed}"))
        root = assemble(store, {}).root
    else:
        arguments = ("strata", action.mnemonic, f"v{action.version}", canonical_json(action.params))
        command = codec.Command(arguments, tuple(sorted(action.environment.items())))
        platform = tuple(sorted(action.platform.items()))
        root = _input_root(store, inputs)
    command_bytes = codec.encode_command(command)
    action_bytes = codec.encode_action(codec.Action(Digest.of(command_bytes), root, salt, platform))
    return Key(Digest.of(action_bytes), action_bytes, command_bytes)


def _input_root(store: Store, inputs: Mapping[str, Node]) -> Digest:
    if inputs and not any("/" in name for name in inputs):
        # What most actions have, at half of what any tree costs.
        return store.save(directory_of(inputs))
    return assemble(store, inputs).root
