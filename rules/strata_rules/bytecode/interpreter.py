"""Has a runtime's own interpreter compile modules: sources out of the store, bytecode files into it.

It knows neither wheels nor layers, only names and contents. The interpreter runs without `site`, in an environment of
its own, in one process for all modules, from a folder that the actions of a build share. Not with `-I`: that would
make it overlook the fixed hash seed.

Hard part: a source is hostile, and compilers crash on some. One that ends the process is left out, as one that does
not compile is; the others are gone on with.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import BinaryIO, NamedTuple

from strata_engine.action import Execution, Input, Literal
from strata_engine.digest import Digest
from strata_engine.errors import ActionError, Diagnostic
from strata_engine.tree import File
from strata_rules.bytecode import compile as script
from strata_rules.layout import layout
from strata_rules.providers import RuntimeInfo

ENVIRONMENT: Mapping[str, str] = {"PYTHONHASHSEED": "0"}
"""The environment of an action that compiles."""

CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})
"""The signals by which a source ends the process that compiles it; others come from outside."""

OPTIONS = ("-S", "-s", "-B", "-X", "utf8", "-W", "ignore")


class Module(NamedTuple):
    """What bytecode is made of. Modules of one name and content have the same, wherever they are."""

    file: str
    """The file's name without its folder. It stands for the path in tracebacks until an import puts that there."""
    content: Digest


class Pyc(NamedTuple):
    """A bytecode file."""

    file: str
    """Its name in `__pycache__`."""
    content: File


def runtime_inputs(runtime: RuntimeInfo) -> dict[str, Input]:
    """Give the inputs by which an action can compile."""
    # The script's text is an input and not a part of the rule: a mended script is a changed input.
    return {"runtime": runtime.tree, "compile.py": Literal(Path(script.__file__).read_bytes())}


def interpreter(runtime: RuntimeInfo) -> str:
    """Give the path of a runtime's interpreter in its tree."""
    return layout(runtime.platform, runtime.python).runtime_python


def compiled(execution: Execution, modules: Iterable[Module]) -> dict[Module, Pyc]:
    """Compile modules, in a fixed order; those that do not compile are left out. Raises ActionError.

    Nothing is run for no modules.
    """
    waiting = sorted(set(modules))
    found: dict[Module, Pyc] = {}
    while waiting:
        tag, answers, ended = _ask(execution, waiting)
        found.update(
            (module, Pyc(f"{module.file.removesuffix('.py')}.{tag}.pyc", File(answer)))
            for module, answer in zip(waiting, answers, strict=False)
            if answer is not None
        )
        if ended.returncode == 0 and len(answers) == len(waiting):
            break
        if not tag or -ended.returncode not in CRASHES or len(answers) == len(waiting):
            raise _unable(execution, ended)
        # The one that it was at ended the process.
        waiting = waiting[len(answers) + 1 :]
    return found


def _ask(execution: Execution, modules: Sequence[Module]) -> tuple[str, list[Digest | None], CompletedProcess[str]]:
    """Run the interpreter once: give its tag and what it has answered before it ended."""
    folder = execution.folder("runtime")
    program, request, answer = (execution.scratch / name for name in ("compile.py", "request", "answer"))
    program.write_bytes(execution.read("compile.py"))
    with request.open("wb") as out:
        for module in modules:
            name, source = module.file.encode(), execution.store.get(module.content)
            out.write(script.REQUEST.pack(len(name), len(source)) + name + source)
    answer.unlink(missing_ok=True)
    python = str(folder / str(execution.params["interpreter"]))
    ended = execution.command([python, *OPTIONS, str(program), str(request), str(answer)])
    answer.touch()
    with answer.open("rb") as stream:
        tag = _record(stream) or b""
        answers = []
        while (record := _record(stream)) is not None:
            execution.check_cancelled()
            answers.append(execution.store.put(record) if record else None)
    return tag.decode(), answers, ended


def _record(stream: BinaryIO) -> bytes | None:
    """Read a record; None where there is none, or not all of it."""
    head = stream.read(script.ANSWER.size)
    if len(head) < script.ANSWER.size:
        return None
    [size] = script.ANSWER.unpack(head)
    data = stream.read(size)
    return data if len(data) == size else None


def _unable(execution: Execution, ended: CompletedProcess[str]) -> ActionError:
    said = (ended.stderr or ended.stdout).strip().splitlines()
    how = said[-1] if said else f"it ended with {ended.returncode}"
    return ActionError(
        Diagnostic(
            "no-bytecode",
            f"`{execution.label}` cannot compile modules with the runtime's own Python: {how}",
            hint="check that this machine can run the runtime: `strata build` makes layers without bytecode",
        ),
        output=ended.stderr,
    )
