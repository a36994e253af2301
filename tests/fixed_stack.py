"""A small stack whose inputs are always the same bytes, made by the rules' own actions: their keys and their outputs.

It is for comparing: with what other versions of the rules gave (`rules/test_rule_versions.py`), and with what another
Python on the same machine gives (`e2e/test_host_independence.py`), which runs this file as a program and has no pytest.
"""

from __future__ import annotations

import base64
import hashlib
import io
import lzma
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import zstandard

from strata_engine.action import Action, Literal, Ref, SourceTree
from strata_engine.build import open_build
from strata_engine.digest import Digest
from strata_engine.graph import ActionGraph
from strata_engine.tree import File, Store, Tree
from strata_engine.workspace import Workspace
from strata_rules.archive.rule import archive_action, checked_level
from strata_rules.bytecode.layer import compile_action
from strata_rules.layout import is_windows, layout
from strata_rules.link.rule import LinkAttrs, Module, link_action
from strata_rules.lock import postprocess
from strata_rules.lock.pins import Lower, Pin
from strata_rules.lock.postprocess import LocalWheel
from strata_rules.lock.request import Request
from strata_rules.lock.rule import RULE_VERSION as LOCK_VERSION
from strata_rules.providers import InstallInfo, LinkInfo, RuntimeInfo
from strata_rules.runtime.unpack import Unpacking, unpack_action
from strata_rules.spec.uvconfig import LayerUvConfig
from strata_rules.wheel.install import install_action
from strata_rules.wheel.unpack import wheel_action

PYTHON, VERSION = "3.12", "3.12.7"
LINUX, WINDOWS = "linux_x86_64", "win_amd64"
SITE = f"python/lib/python{PYTHON}/site-packages"

RUNTIMES: Mapping[str, Mapping[str, bytes]] = {
    LINUX: {
        f"python/bin/python{PYTHON}": b"#!/bin/sh\n",
        "python/bin/pip3": b"#!/bin/sh\n",
        f"python/include/python{PYTHON}/patchlevel.h": f'#define PY_VERSION "{VERSION}"\n'.encode(),
        f"python/lib/python{PYTHON}/os.py": b"sep = '/'\n",
        f"python/lib/python{PYTHON}/__pycache__/os.cpython-312.pyc": b"of another machine",
        f"python/lib/python{PYTHON}/encodings/größe.py": b"# a name that is not ASCII\n",
        f"{SITE}/pip/__init__.py": b"",
        f"{SITE}/pip-24.0.dist-info/RECORD": b"pip/__init__.py,,\n../../../bin/pip3,,\n",
        f"{SITE}/kept/__init__.py": b"",
    },
    WINDOWS: {
        "python/python.exe": b"MZ python",
        "python/include/patchlevel.h": f'#define PY_VERSION "{VERSION}"\n'.encode(),
        "python/python312.dll": b"MZ library",
        "python/Lib/os.py": b"sep = '\\\\'\n",
        "python/Lib/venv/scripts/nt/venvlauncher.exe": b"MZ launcher",
        "python/Lib/venv/scripts/nt/venvwlauncher.exe": b"MZ launcher without a window",
    },
}

WHEELS: Mapping[str, Mapping[str, bytes]] = {
    "plain": {"plain/__init__.py": b"", "plain/größe.txt": "größer\n".encode(), "spaces/one.py": b"1\n"},
    "tools": {
        "tools.py": b"def main(): ...\n",
        "spaces/two.py": b"2\n",
        "tools-1.0.data/scripts/run-it": b"#!python\nimport tools\n",
        "tools-1.0.data/data/bin/program": b"#!/bin/sh\n",
        "tools-1.0.data/data/share/tools/page.1": b".TH\n",
        "tools-1.0.data/headers/tools.h": b"int tools;\n",
        "tools-1.0.dist-info/entry_points.txt": (
            b"[console_scripts]\ntool = tools:main\n[gui_scripts]\nwin = tools:main\n"
        ),
    },
    "twice": {"tools.py": b"# another wheel has this file too\n", "plain/more/deep.py": b""},
}


def write_inputs(folder: Path) -> None:
    """Write the runtimes, the wheels and some bytecode."""
    for path, data in COMPILED.items():
        (folder / "bytecode" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "bytecode" / path).write_bytes(data)
    for platform, files in RUNTIMES.items():
        with tarfile.open(folder / f"{platform}.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for path, data in files.items():
                member = tarfile.TarInfo(path)
                member.size, member.mode = len(data), 0o755 if "/bin/" in path else 0o644
                tar.addfile(member, io.BytesIO(data))
            if platform == LINUX:
                member = tarfile.TarInfo("python/bin/python3")
                member.type, member.linkname = tarfile.SYMTYPE, f"python{PYTHON}"
                tar.addfile(member)
    for name, files in WHEELS.items():
        # Nothing is compressed: the bytes would be those of a version of zlib.
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w", zipfile.ZIP_STORED) as archive:
            for path, data in _distribution(name, files).items():
                member = zipfile.ZipInfo(path)
                member.external_attr = (0o100755 if "/scripts/" in path else 0o100644) << 16
                archive.writestr(member, data)


def _distribution(name: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    info = f"{name}-1.0.dist-info"
    found = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for path, data in found.items():
        hashed = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={hashed},{len(data)}\n")
    return found | {f"{info}/RECORD": "".join([*rows, f"{info}/RECORD,,\n"]).encode()}


# -- actions ----------------------------------------------------------------------------------------------------------


def actions(inputs: Path) -> Iterator[Action]:
    """Give all actions of the stack, for the files of `write_inputs`."""
    wheels = sorted(inputs.glob("*.whl"))
    for wheel in wheels:
        yield _on(wheel_action(f"wheel/{wheel.name}", wheel.name, Ref("")), "wheel.whl", wheel.read_bytes())
    named = {wheel.name.partition("-")[0]: Ref(f"wheel/{wheel.name}") for wheel in wheels}
    for platform in (LINUX, WINDOWS):
        yield from _layers(platform, inputs, named)


def _on(action: Action, name: str, data: bytes) -> Action:
    return msgspec.structs.replace(action, inputs={**action.inputs, name: Literal(data)})


def _layers(platform: str, inputs: Path, wheels: Mapping[str, Ref]) -> Iterator[Action]:
    """Give a runtime, a framework and an application."""
    unpack = f"python/unpack[{platform}]"
    wanted = Unpacking(label=unpack, archive=Ref(""), implementation="cpython", version=VERSION, platform=platform)
    yield _on(unpack_action(wanted), "archive", (inputs / f"{platform}.tar").read_bytes())
    runtime = RuntimeInfo(
        layer="python",
        implementation="cpython",
        version=VERSION,
        platform=platform,
        tree=Ref(unpack, "tree"),
        facts=Ref(unpack, "facts.json"),
        provider="archive",
    )
    below: list[LinkInfo] = []
    for layer, kind, names in (
        ("python", "runtime", ["plain"]),
        ("framework-low", "framework", ["tools", "twice"]),
        ("app-top", "application", ["plain"]),
    ):
        install = f"{layer}/install[{platform}]"
        yield install_action(
            install,
            wheels=[(name, wheels[name]) for name in names],
            layout=layout(platform, PYTHON),
            python=PYTHON,
            runtime=runtime.tree if kind == "runtime" else None,
            # Programs for Windows have the bytes of a version of `installer`.
            entry_points=kind == "framework" and not is_windows(platform),
            ignores_case=is_windows(platform),
            windows=platform if is_windows(platform) else "",
        )
        application = kind == "application"
        attrs = LinkAttrs(
            layer=layer,
            install_target=layer,
            kind=kind,
            platform=platform,
            host=LINUX,
            dynlib="launcher" if application else "preload",
            launch=Module("top", "top.py", Literal(b"import plain\n")) if application else None,
            support=(Module("aid", "aid.py", Literal(b"")),) if application else (),
        )
        installed = InstallInfo(
            layer=layer,
            platform=platform,
            tree=Ref(install, "tree"),
            packages=Ref(install, "packages.json"),
            libraries=Ref(install, "libraries.json"),
        )
        link = f"{layer}/link[{platform}]"
        action = link_action(link, attrs, installed, runtime, below)
        # That script is a changed input when it is mended, not a changed rule.
        yield _on(action, "postinstall.py", b"print('done')\n")
        info = LinkInfo(
            layer=layer,
            install_target=layer,
            platform=platform,
            tree=Ref(link, "tree"),
            libraries=Ref(link, "libraries.json"),
        )
        if kind == "framework" and platform == LINUX:
            yield from _compiled(info, runtime, inputs / "bytecode")
        for format_ in ("tar.xz", "tar.zst", "tar.gz", "zip") if platform == LINUX else ("zip",):
            yield archive_action(f"{layer}/archive[{platform},{format_}]", info, format_, checked_level(format_, None))
        below.insert(0, info)


COMPILED = {
    f"lib/python{PYTHON}/site-packages/{path}.cpython-312.pyc": b"\r\r\r\n\1\0\0\0" + path.encode()
    for path in ("__pycache__/tools", "spaces/__pycache__/two")
}
"""Bytecode of some modules of the framework; the others count as such that do not compile, so that nothing is run."""


def _compiled(link: LinkInfo, runtime: RuntimeInfo, bytecode: Path) -> Iterator[Action]:
    """Give both kinds of Compile."""
    known = {"low": (link.tree, SourceTree(str(bytecode)))}
    for checked in (False, True):
        label = f"{link.layer}/compile[{link.platform},{checked}]"
        action = compile_action(label, link, runtime, known, checked=checked)
        # As `postinstall.py`, it is no part of the rule.
        yield _on(action, "compile.py", b"print('compiled')\n")


# -- what comes out ---------------------------------------------------------------------------------------------------


class Made(msgspec.Struct, frozen=True):
    """An action and what it came to."""

    mnemonic: str
    version: int
    key: str
    output: str
    tool: str = ""
    """For an archive: the codec and its version."""
    tree: str = ""
    """For an archive: the digest of the tree that is in it."""
    content: str = ""
    """For an archive: the digest of what it is before compression, which no codec can change."""


def build(inputs: Path, workspace: Path) -> dict[str, Made]:
    """Build everything with the store that the environment names, and give what each label came to."""
    graph = ActionGraph()
    for action in actions(inputs):
        graph.add(action)
    found: dict[str, Made] = {}
    with open_build(Workspace(workspace)) as building:
        result = building.run(graph, [action.label for action in graph.actions()])
        if result.exit_code:
            raise SystemExit(f"{result.diagnostics}")
        keys = {report.label: str(report.key) for report in result.actions}
        for action in graph.actions():
            artifact = result.artifacts[action.label]
            output = artifact.digest if isinstance(artifact, File) else artifact.root
            made = Made(action.mnemonic, action.version, keys[action.label], output.hash)
            if action.mnemonic == "Archive":
                assert isinstance(artifact, File)
                [tool] = (f"{name.removeprefix('tool:')} {version}" for name, version in action.platform.items())
                content = _content(building.store.cas, artifact, str(action.params["format"]))
                ref = action.inputs["tree"]
                assert isinstance(ref, Ref)
                tree = building.entry(result.artifacts[ref.label], ref)
                assert isinstance(tree, Tree)
                made = msgspec.structs.replace(made, tool=tool, tree=tree.root.hash, content=content)
            found[action.label] = made
    for name, data in locks().items():
        found[f"lock/{name}"] = Made("Lock", LOCK_VERSION, "", Digest.of(data).hash)
    return found


def _content(store: Store, archive: File, format_: str) -> str:
    data = store.get(archive.digest)
    match format_:
        case "tar.xz":
            return Digest.of(lzma.decompress(data)).hash
        case "tar.gz":
            return Digest.of(zlib.decompress(data, 31)).hash
        case "tar.zst":
            with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as stream:
                return Digest.of(stream.read()).hash
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        members = [
            (each.filename, each.date_time, each.external_attr, each.compress_type, opened.read(each).hex())
            for each in opened.infolist()
        ]
    return Digest.of(repr(members).encode()).hash


EXPORT = """\
lock-version = "1.0"
created-by = "uv"

[[packages]]
name = "below"
version = "2.0"
index = "https://index.invalid/simple"
wheels = [{ url = "https://files.invalid/below-2.0-py3-none-any.whl", hashes = { sha256 = "HEX" } }]

[[packages]]
name = "native"
version = "1.5"
marker = "sys_platform == 'win32'"
index = "https://user:secret@index.invalid/simple"
sdist = { url = "https://files.invalid/native-1.5.tar.gz", hashes = { sha256 = "HEX" } }
wheels = [
    { url = "https://files.invalid/native-1.5-cp312-cp312-win_amd64.whl", size = 7, hashes = { sha256 = "HEX" } },
    { url = "https://files.invalid/native-1.5-cp311-cp311-win_amd64.whl", size = 7, hashes = { sha256 = "HEX" } },
]

[[packages]]
name = "local"
version = "1.0"
wheels = [{ url = "file:///wheels/local-1.0-py3-none-any.whl", hashes = {} }]
""".replace("HEX", "ab" * 32)


def locks() -> dict[str, bytes]:
    """Give all that a Lock makes of a fixed answer of uv, and of no requirements."""
    request = Request(
        layer="app-top",
        requirements=("native; sys_platform == 'win32'", "local", "below"),
        python=PYTHON,
        platforms=(LINUX, WINDOWS),
        linux_target="glibc@2.28",
        macosx_target="13.0",
        uv=LayerUvConfig(root=Path("/stack"), settings={}, indexes=(), sources={}),
    )
    lower = Lower([[Pin("below", "2.0", "sys_platform == 'win32'")]], request.targets)

    def localize(url: str) -> LocalWheel | None:
        return LocalWheel("../../wheels/local-1.0-py3-none-any.whl", "cd" * 32) if url.startswith("file:") else None

    lock = postprocess.finish(EXPORT.encode(), request, lower, localize)
    nothing = msgspec.structs.replace(request, requirements=())
    empty = postprocess.outputs(postprocess.empty(nothing), nothing)
    return postprocess.outputs(lock, request) | {f"empty/{name}": data for name, data in empty.items()}


if __name__ == "__main__":
    found = build(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.buffer.write(msgspec.json.encode(found, order="sorted"))
