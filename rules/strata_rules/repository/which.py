"""Which stack files labels mean. It looks for names in folders, and walks the repository only where it must.

The commands that must be quick ask here, so `find` is imported by those who pay for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from strata_engine.errors import Diagnostic, SpecError
from strata_rules.null import SPEC_NAMES
from strata_rules.repository.labels import BELOW, Pattern, StackFile, parse, repository_root, two_files

if TYPE_CHECKING:
    from strata_rules.repository.find import Found


def stack_file(root: Path, pattern: Pattern) -> StackFile:
    """Give the one stack file that a pattern names. Raises SpecError."""
    folder = root / pattern.folder
    there = [name for name in SPEC_NAMES if (folder / name).is_file()]
    if pattern.file:
        if not (folder / pattern.file).is_file():
            raise _unknown(root, pattern)
        return StackFile(root, pattern.folder, pattern.file, is_named=there != [pattern.file])
    if not there:
        raise _unknown(root, pattern)
    if len(there) > 1:
        raise two_files(pattern.folder)
    return StackFile(root, pattern.folder, there[0])


def _unknown(root: Path, pattern: Pattern) -> SpecError:
    from strata_rules.repository.find import known_packages  # noqa: PLC0415 - only who is mistaken pays for it
    from strata_rules.spec.near import did_you_mean  # noqa: PLC0415 - as above

    wanted = StackFile(root, pattern.folder, pattern.file, is_named=bool(pattern.file)).package
    packages = known_packages(root)
    hint = did_you_mean(wanted, packages)
    if hint is None:
        listed = ", ".join(f"`{package}:`" for package in packages[:8])
        hint = f"stack files are {listed}" if listed else "this repository has no stack file"
    error = SpecError.of("unknown-stack", f"there is no stack file for `{pattern.text}`", hint=hint)
    assert isinstance(error, SpecError)
    return error


def resolve(label: str, cwd: Path) -> tuple[Path, str | None]:
    """Give the stack file that a label names and what it is called there; None for the whole stack. Raises SpecError.

    For commands that are about one stack.
    """
    pattern = parse(label)
    if pattern.below:
        raise SpecError.of(
            "bad-label",
            f"`{label}` means several stack files, and one is expected here",
            hint="write `//DIR:LABEL`",
        )
    found = stack_file(repository_root(cwd), pattern)
    return found.path, None if pattern.local == BELOW else pattern.local


def stack_files(root: Path, patterns: Iterable[Pattern]) -> Found:
    """Find the stack files that patterns mean. Raises SpecError for those that mean none."""
    from strata_rules.repository.find import Found, find_all  # noqa: PLC0415 - one stack needs no walk

    files: dict[str, StackFile] = {}
    problems: dict[Diagnostic, None] = {}
    for pattern in patterns:
        if not pattern.below:
            one = stack_file(root, pattern)
            files[one.prefix] = one
            continue
        found = find_all(root, pattern.folder)
        if not found.files and not found.problems:
            # Says what may have been meant.
            stack_file(root, pattern._replace(below=False))
        files |= {one.prefix: one for one in found.files}
        problems |= dict.fromkeys(found.problems)
    return Found(tuple(files[prefix] for prefix in sorted(files)), tuple(problems))
