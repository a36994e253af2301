"""Ask uv what a layer is made of, in a project that is made for the question.

It knows no lock files of ours but for the pins that are preferred. What was tried, and why it is done so:

* `uv pip compile --universal` resolves for all Pythons above one, and loses the settings that belong to projects;
  `uv lock` bounds the Python from both sides and honours all of `[tool.uv]`.
* `uv lock` wants an interpreter that fits `requires-python`, which would mean unpacking the runtime first. So the
  project says `>=3.0` and bounds the Python in `environments`; the lock is then narrowed to `==X.Y.*` before it is
  exported, at which uv drops the markers that have become certain. `uv export --frozen` asks for no interpreter.
* Preferred versions go in as a `uv.lock` that has names and versions alone: uv finds it incomplete, resolves anew, and
  keeps those versions wherever they still fit.
"""

from __future__ import annotations

import functools
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from strata_engine.action import Execution
from strata_engine.errors import Diagnostic, Place
from strata_engine.logins import userinfo, without_userinfo
from strata_rules import uv
from strata_rules.lock import toml
from strata_rules.lock.pins import Pin
from strata_rules.lock.request import Request

_ANY_PYTHON = ">=3.0"
_REQUIRES_PYTHON = re.compile(r'^requires-python = ".*"$', re.MULTILINE)
_PROJECT = "strata-layer"
"""No layer's name: uv would take a requirement of the same name for the project itself."""


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """What travels beside a request: how uv is run, and the versions to keep. None of it is in the key."""

    cache: Path
    """uv's own cache."""
    environ: Mapping[str, str]
    """The environment of the user, from which uv is given a chosen few variables."""
    preferred: tuple[Pin, ...] = ()
    """Pins to keep where they still fit."""
    upgrade: bool = False
    offline: bool = False
    python: str = sys.executable
    place: Place | None = None
    """Where the layer's requirements are written."""
    locate: uv.Locate = lambda _name, _of: None


def resolve(execution: Execution, request: Request, constraints: Sequence[str], beside: Beside) -> bytes:
    """Run uv and give its `pylock.toml`. Raises SpecError, HostError or ActionError, told without credentials."""
    folder = execution.scratch / "project"
    shutil.rmtree(folder, ignore_errors=True)  # it may be asked again, with fewer preferences
    folder.mkdir()
    settings, logins = _logins(request.uv.tool_uv())
    project, config = _project(request, settings, constraints)
    (folder / uv.PROJECT_FILE).write_text(project, "utf-8")
    (folder / uv.CONFIG_FILE).write_text(config, "utf-8")
    if beside.preferred and not beside.upgrade:
        (folder / uv.LOCK_FILE).write_text(_preferences(beside.preferred), "utf-8")
    environment = {**logins, **uv.access(beside.environ)}
    urls = [index.url for index in request.uv.indexes]
    hidden = uv.secrets(environment, urls)

    def run(command: list[str]) -> None:
        show = functools.partial(uv.clean, hidden=hidden, folder=folder)
        ended = execution.command(command, cwd=folder, env=environment, show=show)
        output = uv.clean(ended.stderr + "\n" + ended.stdout, hidden, folder)
        if ended.returncode != 0:
            raise uv.failure(request.layer, output, beside.place, offline=beside.offline, locate=beside.locate)
        for warning in uv.warnings(output):
            execution.warn(Diagnostic("uv-warning", f"uv: {warning}", beside.place, severity="warning"))

    beside.cache.mkdir(parents=True, exist_ok=True)
    run(
        uv.lock_command(
            folder, python=beside.python, cache=beside.cache, upgrade=beside.upgrade, offline=beside.offline
        )
    )
    for name in (uv.PROJECT_FILE, uv.LOCK_FILE):
        file = folder / name
        narrowed = _REQUIRES_PYTHON.sub(f'requires-python = "=={request.python}.*"', file.read_text("utf-8"), count=1)
        file.write_text(narrowed, "utf-8")
    output = folder / "pylock.toml"
    run(uv.export_command(folder, output, cache=beside.cache))
    return output.read_bytes()


def _project(request: Request, settings: Mapping[str, Any], constraints: Sequence[str]) -> tuple[str, str]:
    """Write the project and uv's configuration; indexes stand in both, since `sources` may only name the project's."""
    workspace = {name: value for name, value in settings.items() if name in uv.WORKSPACE_SETTINGS}
    workspace["environments"] = _environments(request, workspace.pop("environments", None))
    given = workspace.get("constraint-dependencies", ())
    workspace["constraint-dependencies"] = [*given, *constraints, *request.below]
    if "index" in settings:
        workspace["index"] = settings["index"]
    # A workspace of its own: a stack may lie below a project that takes all folders for its members.
    workspace |= {"package": False, "workspace": {"members": []}}
    head = {"name": _PROJECT, "version": "0", "requires-python": _ANY_PYTHON, "dependencies": list(request.lines)}
    project = ["[project]", *toml.lines(head), "", "[tool.uv]", *toml.lines(workspace), ""]
    config = {name: value for name, value in settings.items() if name not in uv.WORKSPACE_SETTINGS}
    return "\n".join(project), "\n".join([*toml.lines(config), ""])


def _environments(request: Request, given: object) -> list[str]:
    """Bound the Python version in each environment; without any, ask for the target platforms alone.

    They are one environment, not one each: uv looks for one version that fits an environment as a whole.
    """
    major, minor = request.python.split(".")
    bound = f"python_full_version >= '{request.python}' and python_full_version < '{major}.{int(minor) + 1}'"
    environments = [given] if isinstance(given, str) else given
    if not isinstance(environments, list) or not environments:
        environments = [request.targets.only(request.platforms)]
    return [f"{bound} and ({environment})" for environment in environments]


def _logins(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Move logins out of index URLs into uv's variables: uv quotes the lines of a file that it does not understand."""
    indexes: list[dict[str, Any]] = []
    logins: dict[str, str] = {}
    for number, index in enumerate(settings.get("index", ())):
        pair = userinfo(index["url"])
        table = dict(index)
        if pair is not None:
            name = str(table.setdefault("name", f"strata-index-{number}"))
            variable = re.sub(r"[^A-Z0-9]", "_", name.upper())
            table["url"] = without_userinfo(index["url"])
            logins[f"UV_INDEX_{variable}_USERNAME"], logins[f"UV_INDEX_{variable}_PASSWORD"] = pair
        indexes.append(table)
    return ({**settings, "index": indexes} if indexes else settings), logins


def _preferences(pins: Iterable[Pin]) -> str:
    lines = ["version = 1", f'requires-python = "{_ANY_PYTHON}"']
    for name, version in sorted({(pin.name, pin.version) for pin in pins}):
        # uv compares names and versions only: the registry has to be there, not to be the right one.
        source = {"registry": "https://index.invalid/simple"}
        lines += ["", "[[package]]", *toml.lines({"name": name, "version": version, "source": source})]
    return "\n".join([*lines, ""])
