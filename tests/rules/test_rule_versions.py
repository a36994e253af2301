"""Rule versions: what a rule makes of the same inputs is committed, and changes with its version alone (design §3).

A new version, a new part of the fixed stack or another version of a codec is added to the table with

    STRATA_UPDATE_TABLE=1 python -m pytest tests/rules/test_rule_versions.py

which never replaces what is there. A row is for one key: its output is the rule's alone, whatever the rules below do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import fixed_stack
import pytest
from fixed_stack import Made

from strata_rules.archive import rule as archive
from strata_rules.bytecode import layer as compiled
from strata_rules.link import rule as link
from strata_rules.lock import rule as lock
from strata_rules.runtime import unpack
from strata_rules.wheel import install
from strata_rules.wheel import unpack as wheel

TABLE = Path(__file__).with_name("rule_versions.json")
UPDATE = "STRATA_UPDATE_TABLE=1 python -m pytest tests/rules/test_rule_versions.py"
RULES = {
    "Archive": archive,
    "Compile": compiled,
    "Install": install,
    "Link": link,
    "Lock": lock,
    "Unpack": unpack,
    "Wheel": wheel,
}
"""All but Bytecode: what that makes is an interpreter's, which is an input; `test_bytecode` has it twice."""


Table: TypeAlias = dict[str, dict[str, dict[str, str]]]
"""Mnemonic, version, subject, digest."""


class Row(NamedTuple):
    """One line of the table."""

    mnemonic: str
    version: str
    subject: str
    digest: str
    is_codecs: bool = False


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    folder = tmp_path_factory.mktemp("fixed")
    (folder / "inputs").mkdir()
    (folder / "workspace").mkdir()
    fixed_stack.write_inputs(folder / "inputs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("STRATA_CACHE_DIR", str(folder / "store"))
        return fixed_stack.build(folder / "inputs", folder / "workspace")


def rows(made: dict[str, Made]) -> Iterator[Row]:
    """Give what the table says of each action: for one key one output, so that a rule answers for itself alone.

    An archive's bytes are those of its codec's version, which is in the key; what is in it is for one tree the same.
    """
    for label, each in sorted(made.items()):
        version = str(each.version)
        if each.mnemonic == "Archive":
            yield Row(each.mnemonic, version, f"{label} of {each.tree[:16]}, uncompressed", each.content)
            yield Row(each.mnemonic, version, f"{label} by {each.tool}: {each.key[:16]}", each.output, is_codecs=True)
        else:
            yield Row(each.mnemonic, version, f"{label}: {each.key[:16]}" if each.key else label, each.output)


def compared(found: Iterable[Row], table: Table) -> list[str]:
    """Say what differs from the table. What another version of a codec writes is not known and need not be."""
    changed, unknown = [], []
    for row in found:
        known = table.get(row.mnemonic, {}).get(row.version, {}).get(row.subject)
        if known is None and not row.is_codecs:
            unknown.append(f"`{row.mnemonic}` v{row.version} has no row for {row.subject}: run `{UPDATE}`")
        elif known not in (None, row.digest):
            module = RULES[row.mnemonic].__name__
            changed.append(
                f"`{row.mnemonic}` v{row.version} makes other bytes of the same inputs ({row.subject}), so old results"
                f" would be taken for new ones: raise the version in `{module}`, then run `{UPDATE}`"
            )
    # What reads a changed output has another key; that is no fault of its own.
    return changed or unknown


def read_table() -> Table:
    return json.loads(TABLE.read_text()) if TABLE.exists() else {}


def test_outputs_change_only_with_the_rules_version(made: dict[str, Made]) -> None:
    table = read_table()
    if os.environ.get("STRATA_UPDATE_TABLE"):
        for row in rows(made):
            table.setdefault(row.mnemonic, {}).setdefault(row.version, {}).setdefault(row.subject, row.digest)
        TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
    wrong = compared(rows(made), table)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("mnemonic", list(RULES))
def test_other_bytes_and_unknown_inputs_are_noticed(made: dict[str, Made], mnemonic: str) -> None:
    own = [row for row in rows(made) if row.mnemonic == mnemonic]
    other = [row._replace(digest="0" * 64) for row in own]
    said = compared(other, read_table())
    assert said
    assert all(f"raise the version in `{RULES[mnemonic].__name__}`" in line for line in said)
    newer = compared([row._replace(version="999") for row in own], read_table())
    assert newer
    assert all("has no row" in line for line in newer)


def test_the_fixed_stack_has_an_action_of_every_rule_with_the_modules_version(made: dict[str, Made]) -> None:
    versions = {each.mnemonic: each.version for each in made.values()}
    constants = {name: module.RULE_VERSION if name == "Lock" else module.VERSION for name, module in RULES.items()}
    assert versions == constants
