"""The Lock action in the real engine, with the real uv, against an index on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from strata_engine.build import BuildResult, open_build
from strata_engine.decision import Settings
from strata_engine.digest import Digest
from strata_engine.errors import SpecError
from strata_engine.events import ActionOutput, Event
from strata_engine.rule import Target, analyze
from strata_engine.store import open_store
from strata_engine.workspace import Workspace
from strata_rules import pylock
from strata_rules.lock.request import Request
from strata_rules.lock.resolve import Beside
from strata_rules.lock.rule import LockAttrs, lock
from strata_rules.spec.uvconfig import LayerUvConfig, UvIndex

PLATFORMS = ("linux_x86_64", "macosx_arm64", "win_amd64")


def wheel(
    folder: Path, name: str, version: str, requires: tuple[str, ...] = (), tag: str = "py3-none-any", body: str = ""
) -> Path:
    """Make a wheel that a resolver can read."""
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", body)
        archive.writestr(f"{info}/METADATA", "\n".join([*lines, ""]))
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


class Index:
    """A package index on loopback: JSON pages with upload times; asks for a login where one is set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.times: dict[str, str] = {}
        self.login: str | None = None
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def do_HEAD(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def add(self, name: str, version: str, *requires: str, tag: str = "py3-none-any", day: str = "2024-01-01") -> None:
        self.times[wheel(self.folder, name, version, requires, tag).name] = f"{day}T00:00:00Z"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        given = request.headers.get("Authorization", "")
        if self.login and given != "Basic " + base64.b64encode(self.login.encode()).decode():
            request.send_response(401)
            request.send_header("WWW-Authenticate", "Basic")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        kind, data = "application/octet-stream", b""
        parts = request.path.strip("/").split("/")
        files = sorted(path for path in self.folder.iterdir() if path.name.split("-")[0] == parts[-1])
        if parts[0] == "simple" and files:
            kind = "application/vnd.pypi.simple.v1+json"
            entries = [
                {
                    "filename": path.name,
                    "url": f"../../files/{path.name}",
                    "hashes": {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
                    "upload-time": self.times[path.name],
                    "size": path.stat().st_size,
                }
                for path in files
            ]
            data = json.dumps({"meta": {"api-version": "1.1"}, "name": parts[-1], "files": entries}).encode()
        elif parts[0] == "files" and (self.folder / parts[-1]).is_file():
            data = (self.folder / parts[-1]).read_bytes()
        request.send_response(200 if data else 404)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(data)


class Stack:
    """A workspace with layers to lock, kept in a store of its own."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.root = folder / "stack"
        self.root.mkdir()
        self.store = folder / "store"
        self.cache = folder / "uv"
        self.index = index
        self.settings: dict[str, Any] = {}
        self.url = index.url
        self.environ: dict[str, str] = {"UV_HTTP_RETRIES": "0"}
        self.layers: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self.platforms: tuple[str, ...] = PLATFORMS
        self.python = "3.12"
        self.said: list[str] = []

    def attrs(self, layer: str, *, upgrade: bool = False, offline: bool = False) -> LockAttrs:
        indexes = (UvIndex(url=self.url, name="own", default=True),)
        config = LayerUvConfig(root=self.root, settings=self.settings, indexes=indexes, sources={})
        request = Request(
            layer=layer,
            requirements=self.layers[layer][0],
            python=self.python,
            platforms=self.platforms,
            linux_target="glibc@2.28",
            macosx_target="13.0",
            uv=config,
        )
        return LockAttrs(
            request=request,
            beside=Beside(cache=self.cache, environ=self.environ, upgrade=upgrade, offline=offline),
            lower=self.layers[layer][1],
        )

    def build(self, *, force: bool = False, locked: bool = False, **how: bool) -> BuildResult:
        def hear(event: Event) -> None:
            if isinstance(event, ActionOutput):
                self.said.append(event.line)

        targets = [
            Target(name=layer, rule=lock, attrs=self.attrs(layer, **how), deps=lower)
            for layer, (_, lower) in self.layers.items()
        ]
        store = open_store(self.store, lambda diagnostic: None)
        try:
            with open_build(Workspace(self.root), [hear], store) as build:
                graph = analyze(targets).graph
                settings = Settings(force=("*",) if force else (), locked=locked, keep_going=True)
                return build.run(graph, [f"{layer}/lock" for layer in self.layers], settings=settings)
        finally:
            store.close()

    def lock(self, **how: bool) -> dict[str, str]:
        """Build, and give how each action ended."""
        result = self.build(**how)
        assert result.exit_code == 0, result.diagnostics
        return {action.label: str(action.outcome) for action in result.actions}

    def file(self, layer: str) -> Path:
        return self.root / "requirements" / layer / f"pylock.{layer}.toml"

    def packages(self, layer: str) -> dict[str, Mapping[str, Any]]:
        document = tomllib.loads(self.file(layer).read_text())
        return {f"{p['name']}=={p['version']}": p for p in document["packages"]}

    def meta(self, layer: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / f"requirements/{layer}/pylock.{layer}.meta.json").read_text())
        return found

    def selected(self, layer: str, platform: str = "linux_x86_64") -> list[str]:
        parsed = pylock.parse(self.file(layer).read_bytes(), layer)
        chosen = pylock.select(
            parsed,
            platform=platform,
            python_version=f"{self.python}.1",
            linux_target="glibc@2.28",
            macosx_target="13.0",
        )
        return [found.file for found in chosen]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    folder = tmp_path / "index"
    folder.mkdir()
    made = Index(folder)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def stack(tmp_path: Path, index: Index) -> Stack:
    return Stack(tmp_path, index)


def test_layers_share_what_lies_below(stack: Stack, index: Index) -> None:
    index.add("base", "1.0")
    index.add("base", "2.0")
    index.add("middle", "1.0", "base")
    index.add("winonly", "1.0")
    index.add("top", "1.0", "middle", "winonly; sys_platform == 'win32'")
    stack.layers = {
        "cpython": ((), ()),
        "framework-a": (("base<2",), ("cpython",)),
        "framework-b": (("middle",), ("cpython", "framework-a")),
        "app-x": (("top", "base"), ("cpython", "framework-a", "framework-b")),
    }
    assert stack.lock() == {f"{layer}/lock": "executed" for layer in stack.layers}
    assert stack.selected("framework-a") == ["base-1.0-py3-none-any.whl"]
    assert stack.selected("framework-b") == ["middle-1.0-py3-none-any.whl"]
    assert stack.selected("app-x") == ["top-1.0-py3-none-any.whl"]
    assert stack.selected("app-x", "win_amd64") == ["top-1.0-py3-none-any.whl", "winonly-1.0-py3-none-any.whl"]
    below = stack.packages("app-x")["base==1.0"]
    assert below == {"name": "base", "version": "1.0", "marker": "sys_platform == 'from_lower_layer'"}
    assert "sys_platform == 'win32'" in stack.packages("app-x")["winonly==1.0"]["marker"]
    assert "marker" not in stack.packages("app-x")["top==1.0"]
    text = stack.file("app-x").read_text()
    assert text.startswith("# Locked requirements for app-x (DO NOT EDIT)\n#     Auto-generated by strata")
    assert 'requires-python = "==3.12.*"' in text
    summary = (stack.root / "requirements/app-x/packages-app-x.txt").read_text()
    own, shared = summary.split("# Shared packages inherited from other layers\n")
    assert [line.partition(" ;")[0] for line in own.splitlines()[2:]] == ["top==1.0", "winonly==1.0", ""]
    assert shared.splitlines() == ["base==1.0", "middle==1.0"]
    assert (stack.root / "requirements/cpython/pylock.cpython.toml").read_text().endswith("packages = []\n")
    asked = len(index.asked)
    assert set(stack.lock().values()) == {"up_to_date"}
    assert len(index.asked) == asked


def test_pins_are_kept_until_an_upgrade(stack: Stack, index: Index) -> None:
    index.add("nice", "1.0", "dep")
    index.add("dep", "1.0")
    stack.layers = {"cpython": (("nice<2",), ())}
    stack.lock()
    index.add("nice", "2.0", "dep")
    index.add("dep", "1.1")
    stack.layers = {"cpython": (("nice",), ())}
    assert stack.lock() == {"cpython/lock": "executed"}
    assert set(stack.packages("cpython")) == {"nice==1.0", "dep==1.0"}
    stack.layers = {"cpython": (("nice>=2",), ())}
    stack.lock()
    assert set(stack.packages("cpython")) == {"nice==2.0", "dep==1.0"}
    stack.lock(force=True, upgrade=True)
    assert set(stack.packages("cpython")) == {"nice==2.0", "dep==1.1"}


def test_a_revert_is_free_and_a_fresh_clone_is_valid(stack: Stack, index: Index, tmp_path: Path) -> None:
    index.add("nice", "1.0")
    index.add("more", "1.0")
    stack.layers = {"cpython": (("nice",), ())}
    stack.lock()
    first = stack.file("cpython").read_bytes()
    stack.layers = {"cpython": (("nice", "more"), ())}
    assert stack.lock() == {"cpython/lock": "executed"}
    stack.layers = {"cpython": (("nice",), ())}
    assert stack.lock() == {"cpython/lock": "cached"}
    assert stack.file("cpython").read_bytes() == first
    # Another machine: no store, and git has checked the files out with other line ends.
    stack.file("cpython").write_bytes(first.replace(b"\n", b"\r\n"))
    stack.store = tmp_path / "elsewhere"
    moved = stack.root.with_name("moved")
    stack.root = stack.root.rename(moved)
    asked = len(index.asked)
    stack.lock(locked=True)
    assert len(index.asked) == asked


def test_locked_says_why(stack: Stack, index: Index) -> None:
    index.add("nice", "1.0")
    stack.layers = {"cpython": (("nice",), ())}
    [missing] = stack.build(locked=True).diagnostics
    assert missing.id == "locked"
    assert missing.notes == ("`cpython` has no lock (`pylock.cpython.toml`)",)
    stack.lock()
    stack.file("cpython").write_text(stack.file("cpython").read_text() + "\n")
    stack.layers = {"cpython": (("nice>0",), ())}
    [edited] = stack.build(locked=True).diagnostics
    assert "changed by hand" in edited.notes[0]
    assert edited.notes[1].endswith("`nice>0` is required now, `nice` is no longer required")


def test_what_belongs_to_the_request_makes_a_lock_stale(stack: Stack, index: Index) -> None:
    index.add("nice", "1.0", day="2024-01-01")
    index.add("nice", "2.0", day="2024-06-01")
    stack.layers = {"cpython": (("nice",), ())}
    stack.settings = {"exclude-newer": "2024-03-01T00:00:00Z"}
    stack.lock()
    assert set(stack.packages("cpython")) == {"nice==1.0"}
    stack.settings = {"exclude-newer": "2024-09-01T00:00:00Z"}
    assert stack.lock(upgrade=True) == {"cpython/lock": "executed"}
    assert set(stack.packages("cpython")) == {"nice==2.0"}
    stack.settings |= {"override-dependencies": ["nice==1.0"]}
    assert stack.lock() == {"cpython/lock": "executed"}
    assert set(stack.packages("cpython")) == {"nice==1.0"}
    for change in ({"platforms": PLATFORMS[:1]}, {"python": "3.13"}, {"environ": {"UV_PRERELEASE": "allow"}}):
        for name, value in change.items():
            setattr(stack, name, value)
        assert stack.lock() == {"cpython/lock": "executed"}, change
    stack.environ = stack.environ | {"HTTPS_PROXY": "", "UV_INDEX_OWN_PASSWORD": "x", "LANG": "de"}
    assert stack.lock() == {"cpython/lock": "up_to_date"}


def test_an_unchanged_answer_keeps_its_time(stack: Stack, index: Index) -> None:
    index.add("nice", "1.0")
    stack.layers = {"cpython": (("nice",), ())}
    stack.lock()
    before = stack.meta("cpython")
    stamp = stack.file("cpython").stat()
    stack.settings = {"resolution": "lowest"}
    assert stack.lock() == {"cpython/lock": "executed"}
    after = stack.meta("cpython")
    assert after["locked_at"] == before["locked_at"]
    assert after["strata"]["request"] != before["strata"]["request"]
    assert stack.file("cpython").stat().st_ino == stamp.st_ino


def test_local_wheels_are_inputs_by_content(stack: Stack, tmp_path: Path) -> None:
    folder = stack.root / "wheels"
    folder.mkdir()
    wheel(folder, "local", "1.0", ("local_dep",))
    made = wheel(folder, "local_dep", "1.0")
    stack.settings = {"find-links": ["wheels"]}
    stack.layers = {"cpython": (("local",), ())}
    stack.lock()
    [locked] = stack.packages("cpython")["local-dep==1.0"]["wheels"]
    assert locked == {
        "path": "../../wheels/local_dep-1.0-py3-none-any.whl",
        "hashes": {"sha256": hashlib.sha256(made.read_bytes()).hexdigest()},
    }
    assert str(tmp_path) not in "".join(p.read_text() for p in stack.file("cpython").parent.iterdir())
    [found] = [w for p in pylock.parse(stack.file("cpython").read_bytes(), "x").packages for w in p.wheels][1:]
    assert pylock.local_path(found, lock_folder=stack.file("cpython").parent, workspace=stack.root) == made
    assert stack.lock() == {"cpython/lock": "up_to_date"}
    wheel(folder, "local_dep", "1.0", body="changed = True")
    assert stack.lock() == {"cpython/lock": "executed"}
    assert stack.packages("cpython")["local-dep==1.0"]["wheels"] != [locked]
    wheel(folder, "local_dep", "2.0")
    assert stack.lock() == {"cpython/lock": "executed"}
    assert "local-dep==1.0" in stack.packages("cpython")


def test_no_wheel_for_a_target_is_told_with_what_can_be_done(stack: Stack, index: Index) -> None:
    index.add("native", "1.0", tag="cp312-cp312-manylinux_2_17_x86_64")
    index.add("native", "1.0", tag="cp313-cp313-win_amd64")
    stack.layers = {"cpython": (("native",), ())}
    result = stack.build()
    assert result.exit_code == 2
    [diagnostic] = result.diagnostics
    assert diagnostic.id == "no-wheel"
    assert diagnostic.message == "`native` 1.0 has no wheel for `macosx_arm64`, `win_amd64`"
    assert 'platforms = ["linux_x86_64"]' in (diagnostic.hint or "")
    assert not stack.file("cpython").exists()
    stack.platforms = ("linux_x86_64",)
    stack.lock()
    assert [len(package["wheels"]) for package in stack.packages("cpython").values()] == [1]


def test_no_wheel_for_a_system_that_is_old_names_the_target_to_raise(stack: Stack, index: Index) -> None:
    index.add("mlx", "1.0", tag="py3-none-macosx_14_0_arm64")
    index.add("mlx", "1.0", tag="py3-none-macosx_15_0_arm64")
    index.add("mlx", "1.0", tag="cp313-cp313-macosx_11_0_arm64")
    index.add("mlx", "1.0", tag="cp312-abi3-manylinux_2_35_x86_64")
    stack.layers = {"cpython": (("mlx",), ())}
    stack.platforms = ("macosx_arm64", "linux_x86_64")
    [diagnostic] = stack.build().diagnostics
    said = 'give the layer `macosx_target = "14.0"` and `linux_target = "glibc@2.35"`, or require a version of `mlx`'
    assert (diagnostic.id, (diagnostic.hint or "").startswith(said)) == ("no-wheel", True), diagnostic.hint


def test_a_version_without_a_wheel_for_a_new_platform_is_not_kept(stack: Stack, index: Index) -> None:
    index.add("native", "1.0", tag="cp312-cp312-manylinux_2_17_x86_64")
    index.add("steady", "1.0")
    stack.layers = {"cpython": (("native", "steady"), ())}
    platforms, stack.platforms = stack.platforms, ("linux_x86_64",)
    stack.lock()
    index.add("native", "2.0")
    index.add("steady", "2.0")
    stack.platforms = platforms
    stack.lock()
    assert {"native==2.0", "steady==1.0"} == set(stack.packages("cpython"))


def test_no_solution_is_the_users(stack: Stack, index: Index) -> None:
    index.add("base", "1.0")
    index.add("base", "2.0")
    stack.layers = {"cpython": (("base<2",), ()), "app-x": (("base>=2",), ("cpython",))}
    result = stack.build()
    assert result.exit_code == 2
    [diagnostic] = result.diagnostics
    assert diagnostic.id == "no-solution"
    assert "`app-x`" in diagnostic.message
    notes = "\n".join(diagnostic.notes)
    assert "base==1.0" in notes
    assert "base>=2" in notes
    assert "active Python version" not in notes
    assert str(stack.root.parent) not in notes


def test_an_unreachable_index_is_the_hosts(stack: Stack, index: Index) -> None:
    index.server.shutdown()
    index.server.server_close()
    stack.url = stack.url.replace("http://", "http://somebody:hunter2@")
    stack.layers = {"cpython": (("nice",), ())}
    result = stack.build()
    assert result.exit_code == 3
    [diagnostic] = result.diagnostics
    assert diagnostic.id == "unreachable"
    assert f"`{index.url}/nice/`" in diagnostic.message
    assert "hunter2" not in str(diagnostic) + "".join(stack.said)


def test_offline_says_so(stack: Stack, index: Index) -> None:
    index.add("nice", "1.0")
    stack.layers = {"cpython": (("nice",), ())}
    result = stack.build(offline=True)
    assert result.exit_code == 3
    assert result.diagnostics[0].id == "offline"
    assert index.asked == []


@pytest.mark.parametrize("how", ["variables", "url", "netrc"])
def test_a_login_is_used_and_never_recorded(stack: Stack, index: Index, how: str, tmp_path: Path) -> None:
    index.add("nice", "1.0")
    index.login = "somebody:hunter2secret"
    stack.layers = {"cpython": (("nice",), ())}
    refused = stack.build()
    assert refused.exit_code == 3
    assert refused.diagnostics[0].id == "index-login"
    plain = stack.url
    if how == "variables":
        stack.environ |= {"UV_INDEX_OWN_USERNAME": "somebody", "UV_INDEX_OWN_PASSWORD": "hunter2secret"}
    elif how == "url":
        stack.url = plain.replace("http://", f"http://{index.login}@")
    else:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password hunter2secret\n")
        stack.environ |= {"NETRC": str(tmp_path / "netrc")}
    stack.lock()
    assert stack.packages("cpython")["nice==1.0"]["index"] == plain
    request = stack.meta("cpython")["strata"]["request"]
    everything = b"".join(p.read_bytes() for p in (*stack.root.rglob("*"), *stack.store.rglob("*")) if p.is_file())
    assert b"hunter2secret" not in everything + "".join(stack.said).encode()
    # The login is not in the key: whoever has another one, or none, finds the lock valid.
    stack.url, stack.environ = plain, {"UV_HTTP_RETRIES": "0"}
    assert stack.lock() == {"cpython/lock": "up_to_date"}
    assert stack.meta("cpython")["strata"]["request"] == request


def test_a_machines_own_configuration_does_not_matter(stack: Stack, index: Index, tmp_path: Path) -> None:
    index.add("nice", "1.0")
    (tmp_path / ".config/uv").mkdir(parents=True)
    (tmp_path / ".config/uv/uv.toml").write_text('exclude-newer = "2000-01-01T00:00:00Z"\n')
    (tmp_path / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["**"]\n')
    stack.environ |= {"XDG_CONFIG_HOME": str(tmp_path / ".config"), "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    stack.environ |= {"UV_CONFIG_FILE": str(tmp_path / ".config/uv/uv.toml"), "HOME": str(tmp_path)}
    stack.layers = {"cpython": (("nice",), ())}
    stack.lock()
    assert set(stack.packages("cpython")) == {"nice==1.0"}
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {".config", "index", "pyproject.toml", "stack", "store", "uv"}


def test_a_package_from_below_on_one_platform_is_own_on_the_others(stack: Stack, index: Index) -> None:
    index.add("half", "1.0")
    index.add("half", "2.0")
    stack.layers = {
        "cpython": (("half<2; sys_platform == 'win32'",), ()),
        "app-x": (("half<2",), ("cpython",)),
        "app-y": (("half",), ("cpython",)),
    }
    stack.lock()
    assert stack.selected("app-x", "win_amd64") == []
    assert stack.selected("app-x", "linux_x86_64") == ["half-1.0-py3-none-any.whl"]
    assert stack.selected("app-y", "win_amd64") == []


def test_equal_requests_give_equal_keys_and_bytes(stack: Stack, index: Index, tmp_path: Path) -> None:
    index.add("one", "1.0")
    index.add("two", "1.0")
    stack.layers = {"cpython": (("one", "two>=1,<2"), ())}
    stack.lock()
    other = Stack(tmp_path / "deep" if (tmp_path / "deep").mkdir() is None else tmp_path, index)
    other.layers = {"cpython": (("two <2, >=1", "one"), ())}
    other.lock()
    assert other.file("cpython").read_bytes() == stack.file("cpython").read_bytes()
    assert other.meta("cpython")["strata"] == stack.meta("cpython")["strata"]
    assert Digest.parse(other.meta("cpython")["strata"]["request"])


def test_wrong_settings_are_the_users(stack: Stack, index: Index) -> None:
    index.add("nice", "1.0")
    stack.layers = {"cpython": (("nice",), ())}
    stack.settings = {"resolution": "sideways"}
    result = stack.build()
    assert result.exit_code == 2
    assert result.diagnostics[0].id == "bad-uv-settings"
    assert result.diagnostics[0].message == "uv does not accept `resolution`: unknown variant `sideways`"


def test_no_interpreter_of_the_target_is_needed(stack: Stack, index: Index) -> None:
    index.add("nice", "1.0", "old; python_version < '3.77'", "new; python_version >= '3.77'", "patch")
    index.add("new", "1.0")
    index.add("patch", "1.0", "early; python_full_version < '3.77.4'")
    index.add("early", "1.0")
    stack.python = "3.77"
    stack.layers = {"cpython": (("nice",), ())}
    stack.lock()
    assert set(stack.packages("cpython")) == {"nice==1.0", "new==1.0", "patch==1.0", "early==1.0"}
    assert "marker" not in stack.packages("cpython")["new==1.0"]
    assert "early-1.0-py3-none-any.whl" in stack.selected("cpython")


def test_an_unreadable_url_with_a_login_is_not_shown(stack: Stack) -> None:
    stack.url = "https://somebody:hunter2@host:99999/simple"
    stack.layers = {"cpython": (("nice",), ())}
    with pytest.raises(SpecError) as caught:
        stack.build()
    assert caught.value.diagnostics[0].id == "bad-index-url"
    assert "hunter2" not in str(caught.value.diagnostics) + "".join(stack.said)
