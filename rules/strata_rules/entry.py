"""The process's way in and its one way out: the cheap answer first, then the command line, then an exit code.

Only `sys` and `os` are imported before it is known that the build is not a null build (design §6). No exception leaves
`main`: whatever happens becomes diagnostics on standard error and one of the exit codes of design §8.
"""

from __future__ import annotations

import os
import sys


def null_build(argv: list[str]) -> int | None:
    """Answer a build that has nothing to do and give its exit code, or None where the full way must look."""
    if not {"build", "local-export", "publish"}.intersection(argv):
        return None
    from strata_rules.null import find_answer, note  # noqa: PLC0415 - only these commands pay for it

    try:
        found = find_answer(argv)
    except OSError:
        # A current folder that is gone, for example: the full way has words for it.
        return None
    if found is None:
        return None
    error, output, record, root = found
    if sys.stderr is not None:
        try:
            sys.stderr.write(error)
            sys.stderr.flush()
        except OSError:
            # Nobody reads it: the build is up to date all the same.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if sys.stdout is not None:
        sys.stdout.write(output)
    try:  # noqa: SIM105 - contextlib would be one more import
        note(record, root)
    except OSError:
        # As with all of the state folder: what cannot be written is not remembered.
        pass
    return 0


def command_line(argv: list[str]) -> int:
    """Run a command and give its exit code."""
    # Imported here, not above: the command line costs more to import than a null build takes.
    import gc  # noqa: PLC0415 - see the comment above
    import signal  # noqa: PLC0415 - see the comment above

    # Modules stay, so looking for garbage among them is for nothing.
    gc.disable()
    from strata_rules.cli.main import run  # noqa: PLC0415 - see the comment above

    gc.enable()
    # A polite end is an interrupt: consoles give the terminal back, and nothing is left half-written.
    signal.signal(signal.SIGTERM, _interrupt)
    return run(argv)


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt


def guarded(argv: list[str]) -> int:
    """Run a command; turn what it raises into diagnostics and an exit code."""
    try:
        code = null_build(argv)
        return command_line(argv) if code is None else code
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001, RUF100 - the outermost frame: nothing may become a bare traceback
        from strata_rules.cli.failure import report  # noqa: PLC0415 - only a failure pays for it

        return report(error, argv, sys.stderr, os.environ)


def main() -> None:
    """Run `strata` and exit."""
    code: int | str | None
    try:
        code = guarded(sys.argv[1:])
    except SystemExit as stop:
        code = stop.code
    except KeyboardInterrupt:
        code = 130
    _flush()
    sys.exit(code)


def _flush() -> None:
    """Hand over standard output; where its reader has gone, keep Python from complaining about it as it exits."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
