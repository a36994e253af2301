"""Rule versions: what a rule makes of the same inputs is committed, and changes with its version alone (design §3).

A new version, a new part of the fixed stack or another version of a codec is added to the table with

    STRATA_UPDATE_TABLE=1 python -m pytest tests/rules/test_rule_versions.py

which never replaces what is there.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterator
from pathlib import Path

import fixed_stack
import pytest
from fixed_stack import Made

from strata_rules.archive import rule as archive
from strata_rules.link import rule as link
from strata_rules.lock import rule as lock
from strata_rules.runtime import unpack
from strata_rules.wheel import install
from strata_rules.wheel import unpack as wheel

TABLE = Path(__file__).with_name("rule_versions.json")
UPDATE = "STRATA_UPDATE_TABLE=1 python -m pytest tests/rules/test_rule_versions.py"
RULES = {"Archive": archive, "Install": install, "Link": link, "Lock": lock, "Unpack": unpack, "Wheel": wheel}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    folder = tmp_path_factory.mktemp("fixed")
    (folder / "inputs").mkdir()
    (folder / "workspace").mkdir()
    fixed_stack.write_inputs(folder / "inputs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("STRATA_CACHE_DIR", str(folder / "store"))
        return fixed_stack.build(folder / "inputs", folder / "workspace")


def rows(made: dict[str, Made]) -> Iterator[tuple[str, str, str, str]]:
    """Give (mnemonic, version, subject, digest); an archive's bytes are those of a codec's version, its content not."""
    for label, each in sorted(made.items()):
        if each.mnemonic == "Archive":
            yield each.mnemonic, str(each.version), f"{label}, content", each.content
            yield each.mnemonic, str(each.version), f"{label}, {each.tool}", each.output
        else:
            yield each.mnemonic, str(each.version), label, each.output


def compared(found: Iterator[tuple[str, str, str, str]], table: dict[str, dict[str, dict[str, str]]]) -> list[str]:
    """Say what differs from the table."""
    wrong = []
    for mnemonic, version, subject, digest in found:
        known = table.get(mnemonic, {}).get(version, {})
        # What another version of a codec writes is not known and need not be.
        if subject not in known and (mnemonic != "Archive" or subject.endswith(", content")):
            wrong.append(f"`{subject}` of `{mnemonic}` v{version} is not in the table: run `{UPDATE}`")
        elif known.get(subject, digest) != digest:
            file = inspect.getsourcefile(RULES[mnemonic])
            wrong.append(
                f"`{subject}` of `{mnemonic}` v{version} has other bytes than it had: old results would be taken for"
                f" new ones. Raise the version in `{file}`, then run `{UPDATE}`"
            )
    return wrong


def read_table() -> dict[str, dict[str, dict[str, str]]]:
    return json.loads(TABLE.read_text()) if TABLE.exists() else {}


def test_outputs_change_only_with_the_rules_version(made: dict[str, Made]) -> None:
    table = read_table()
    if os.environ.get("STRATA_UPDATE_TABLE"):
        for mnemonic, version, subject, digest in rows(made):
            table.setdefault(mnemonic, {}).setdefault(version, {}).setdefault(subject, digest)
        TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
    wrong = compared(rows(made), table)
    assert not wrong, "\n".join(wrong)


def test_a_changed_digest_and_a_forgotten_row_are_noticed(made: dict[str, Made]) -> None:
    for mnemonic in RULES:
        table = read_table()
        version = next(str(each.version) for each in made.values() if each.mnemonic == mnemonic)
        subject = min(table[mnemonic][version])
        table[mnemonic][version][subject] = "0" * 64
        [said] = compared(rows(made), table)
        assert "Raise the version" in said
        table[mnemonic][version] = {}
        assert all("not in the table" in said for said in compared(rows(made), table))
        assert compared(rows(made), table)


def test_the_fixed_stack_has_an_action_of_every_rule_with_the_modules_version(made: dict[str, Made]) -> None:
    versions = {each.mnemonic: each.version for each in made.values()}
    constants = {name: module.RULE_VERSION if name == "Lock" else module.VERSION for name, module in RULES.items()}
    assert versions == constants
