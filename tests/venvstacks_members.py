"""In what archives of the two tools differ, each difference with its reason; in nothing else may they."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from archives import Entry, differences

from strata_rules.layout import DYNLIB_DIR

BOOT = ("zzz_layers.pth", "zzz_layers.start", "_strata_boot.py")
"""The layers below are found relative to this one, so nothing has to be written where it is unpacked."""

OF_THE_MACHINE = ("REQUESTED", "direct_url.json", "uv_cache.json")
"""What uv says of how a package came here: on request or along with another, from which folder, at what time. A lock
does not tell the first, and the others would make an archive depend on the machine."""

DROPPED = ("toolkit/sitecustomize.py", "toolkit/__pycache__", "toolkit/__pycache__/__init__.cpython-311.pyc")
"""A package's own files that venvstacks leaves out for their names, while RECORD goes on listing them."""


def differences_of(theirs: Mapping[str, Entry], ours: Mapping[str, Entry], target: str, python: str) -> list[str]:
    """Compare the archives of a layer: its folder is `target`, its Python is `X.Y`."""
    site = f"{target}/lib/python{python}/site-packages"
    expected = {path: entry for path, entry in theirs.items() if not _left_out(path, theirs, target)}
    only_ours = {f"{site}/{name}" for name in BOOT + DROPPED}
    found = {path: entry for path, entry in ours.items() if path not in only_ours and not _numbered(path, target)}
    pyvenv = found.pop(f"{target}/pyvenv.cfg", None)
    # venvstacks writes it where the layer is unpacked, with the paths of that place.
    assert pyvenv is None or b"/" not in pyvenv.content
    return [
        *differences(_rest(expected, target), _rest(found, target)),
        *_python(theirs, ours, target),
        *_installed(theirs, ours),
    ]


def _left_out(path: str, theirs: Mapping[str, Entry], target: str) -> bool:
    """Tell whether only venvstacks has a member."""
    inner, entry = path.removeprefix(f"{target}/"), theirs[path]
    folder = inner.rpartition("/")[0]
    if folder.endswith(".dist-info") and inner.rpartition("/")[2] in OF_THE_MACHINE:
        return True
    if inner == "pyvenv.cfg" or (
        path.endswith("/site-packages/sitecustomize.py") and b"post-installation" in entry.content
    ):
        # Written where the layer is exported, by its `postinstall.py`.
        return True
    if folder == "bin" and entry.kind == "file" and _starts_the_builders_python(inner, entry):
        return True
    if entry.kind == "folder" and "/site-packages/" not in inner:
        # The folders that `python -m venv` makes for compilers.
        below = [other for other in theirs if other.startswith(f"{path}/") and theirs[other].kind != "folder"]
        return not below
    # A link that `python -m venv` makes where systems have a `lib64`: nothing in a layer looks there.
    return inner == "lib64" and entry.content == b"lib"


def _numbered(path: str, target: str) -> bool:
    """Tell whether a member is the link of a library with a number in its name: venvstacks looks at suffixes."""
    folder, _, name = path.rpartition("/")
    return folder == f"{target}/{DYNLIB_DIR}" and not name.endswith(".so")


def _starts_the_builders_python(inner: str, entry: Entry) -> bool:
    """Tell whether a script was kept for its name, which begins with `python`: it starts with the builder's folder."""
    return inner != "bin/python" and entry.content.startswith(b"#!/") and b"/_build/" in entry.content.splitlines()[0]


def _rest(entries: Mapping[str, Entry], target: str) -> dict[str, Entry]:
    """Leave out what is compared apart, because both tools have it and each its own."""
    apart = (f"{target}/bin/python", f"{target}/postinstall.py")
    return {
        path: entry
        for path, entry in entries.items()
        if path not in apart and not path.endswith((".dist-info/INSTALLER", ".dist-info/RECORD"))
    }


def _python(theirs: Mapping[str, Entry], ours: Mapping[str, Entry], target: str) -> Iterable[str]:
    """Compare `bin/python`: theirs is a script that sets LD_LIBRARY_PATH for all children, ours the link it starts."""
    path = f"{target}/bin/python"
    if theirs[path].kind == "file" and theirs[path].content.startswith(b"#!"):
        if ours[path] != theirs[f"{path}_"]:
            yield f"{path}: {ours[path]}"
    elif ours[path] != theirs[path]:
        yield f"{path}: {theirs[path].kind} / {ours[path].kind}"


def _installed(theirs: Mapping[str, Entry], ours: Mapping[str, Entry]) -> Iterable[str]:
    """Compare who installed packages, and the RECORDs without the lines of what is left out."""
    paths = [path for path in theirs if path.endswith(".dist-info/RECORD")]
    if paths != [path for path in ours if path.endswith(".dist-info/RECORD")]:
        yield "not the same packages"
        return
    for path in paths:
        folder = path.removesuffix("/RECORD")
        installers = (theirs[f"{folder}/INSTALLER"].content.strip(), ours[f"{folder}/INSTALLER"].content.strip())
        if installers != (b"uv", b"strata"):
            yield f"{folder} is of {installers}"
        info = folder.rpartition("/")[2]
        own = (*(f"{info}/{name}," for name in ("INSTALLER", *OF_THE_MACHINE)), "../../../bin/python-tool,")
        lines = [
            sorted(line for line in entries[path].content.decode().splitlines() if not line.startswith(own))
            for entries in (theirs, ours)
        ]
        if lines[0] != lines[1]:
            yield f"{path}: {set(lines[0]) ^ set(lines[1])}"
