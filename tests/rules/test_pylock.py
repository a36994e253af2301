"""pylock: what is read, what is refused, and which wheel a platform gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata_engine.errors import SpecError
from strata_rules import pylock

HEX = "ab" * 32
ODD = "sys_platform == 'from_lower_layer' and os_name == 'nt'"
LINUX = {"platform": "linux_x86_64", "python_version": "3.11.7", "linux_target": "glibc@2.28", "macosx_target": "13.0"}


def wheel(file: str, where: str | None = None, extra: str = "") -> str:
    where = where or f'url = "https://host.invalid/{file}"'
    return f'{{ {where}, hashes = {{ sha256 = "{HEX}" }}{extra} }}'


def package(name: str, version: str, *wheels: str, marker: str | None = None) -> str:
    lines = ["[[packages]]", f'name = "{name}"', f'version = "{version}"']
    if marker:
        lines.append(f'marker = "{marker}"')
    if wheels:
        lines.append(f"wheels = [{', '.join(wheels)}]")
    return "\n".join(lines) + "\n"


def lock(*packages: str, head: str = 'requires-python = "==3.11.*"\n') -> bytes:
    return ('lock-version = "1.0"\ncreated-by = "uv"\n' + head + "".join(packages)).encode()


def chosen(data: bytes, **changes: str) -> list[str]:
    return [w.file for w in pylock.select(pylock.parse(data, "pylock.x.toml"), **(LINUX | changes))]


def test_the_best_tag_wins_and_a_build_number_breaks_the_tie() -> None:
    data = lock(
        package(
            "nice",
            "1.0",
            wheel("nice-1.0-py3-none-any.whl"),
            wheel("nice-1.0-cp311-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"),
            wheel("nice-1.0-cp311-cp311-manylinux_2_17_x86_64.whl"),
            wheel("nice-1.0-2-cp311-cp311-manylinux_2_17_x86_64.whl"),
            wheel("nice-1.0-cp311-cp311-manylinux_2_34_x86_64.whl"),
            wheel("nice-1.0-cp312-cp312-manylinux_2_17_x86_64.whl"),
            wheel("nice-1.0-cp311-cp311-macosx_11_0_arm64.whl"),
        )
    )
    assert chosen(data) == ["nice-1.0-2-cp311-cp311-manylinux_2_17_x86_64.whl"]
    assert chosen(data, linux_target="glibc@2.35") == ["nice-1.0-cp311-cp311-manylinux_2_34_x86_64.whl"]
    assert chosen(data, platform="macosx_arm64") == ["nice-1.0-cp311-cp311-macosx_11_0_arm64.whl"]
    assert chosen(data, platform="win_amd64") == ["nice-1.0-py3-none-any.whl"]


def test_markers_are_the_platforms_and_lower_layers_are_left_out() -> None:
    data = lock(
        package("below", "1.0", marker="sys_platform == 'from_lower_layer'"),
        package("half", "1.0", marker="sys_platform == 'win32' and sys_platform == 'from_lower_layer'"),
        package("posix", "1.0", wheel("posix-1.0-py3-none-any.whl"), marker="sys_platform != 'win32'"),
        package("windows", "1.0", wheel("windows-1.0-py3-none-any.whl"), marker="sys_platform == 'win32'"),
    )
    parsed = pylock.parse(data, "x")
    assert [p.from_lower_layer for p in parsed.packages] == [True, True, False, False]
    assert chosen(data) == ["posix-1.0-py3-none-any.whl"]
    assert chosen(data, platform="win_arm64") == ["windows-1.0-py3-none-any.whl"]


def test_every_missing_wheel_is_told_at_once() -> None:
    data = lock(
        package("one", "1.0", wheel("one-1.0-cp311-cp311-win_amd64.whl")),
        package("two", "2.0", wheel("two-2.0-cp311-cp311-musllinux_1_2_x86_64.whl")),
    )
    with pytest.raises(SpecError) as caught:
        chosen(data)
    first, second = caught.value.diagnostics
    assert first.id == second.id == "no-wheel"
    assert "`one` 1.0" in first.message
    assert "`linux_x86_64`" in first.message
    assert "cp311-cp311-win_amd64" in first.notes[0]
    assert "platforms = [" in (first.hint or "")
    assert "`two` 2.0" in second.message


def test_a_lock_for_another_python_is_refused() -> None:
    data = lock(package("nice", "1.0", wheel("nice-1.0-py3-none-any.whl")))
    with pytest.raises(SpecError, match=r"Python ==3\.11\.\*, the runtime is Python 3\.12\.1"):
        chosen(data, python_version="3.12.1")


def test_two_versions_at_once_are_refused() -> None:
    data = lock(
        package("nice", "1.0", wheel("nice-1.0-py3-none-any.whl")),
        package("nice", "2.0", wheel("nice-2.0-py3-none-any.whl"), marker="sys_platform == 'linux'"),
    )
    with pytest.raises(SpecError, match="two versions on `linux_x86_64`"):
        chosen(data)
    assert chosen(data, platform="win_amd64") == ["nice-1.0-py3-none-any.whl"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff", "UTF-8"),
        (b"a = ", "not TOML"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "nested"),
        (b'lock-version = "2.0"', "lock-version"),
        (b'lock-version = "1.0"\nrequires-python = "x"', "requires-python"),
        (b'lock-version = "1.0"\npackages = 3', "array of tables"),
        (lock(package("Not.Normal", "1.0")), "normalised"),
        (lock(package("nice", "one")), "version 'one'"),
        (lock(package("nice", "1.0", marker="nonsense")), "marker"),
        (lock(package("nice", "1.0")), "no wheel of `nice`"),
        (lock(package("nice", "1.0") + "sdist = { }\n"), "`sdist`, which is never built"),
        (lock(package("nice", "1.0", wheel("nice-2.0-py3-none-any.whl"))), "as a wheel of `nice` 1.0"),
        (lock(package("nice", "1.0", wheel("evil-1.0-py3-none-any.whl"))), "as a wheel of `nice` 1.0"),
        (lock(package("nice", "1.0", wheel("x", 'url = "https://h/..%2Fnice-1.0-py3-none-any.whl"'))), "as a wheel"),
        (lock(package("nice", "1.0", wheel("nice-1.0-py3-none-..\\\\any.whl"))), "as a wheel"),
        (lock(package("nice", "1.0", wheel("x", 'url = "ftp://h/nice-1.0-py3-none-any.whl"'))), "scheme `ftp`"),
        (lock(package("nice", "1.0", wheel("x", 'url = "https://[h/nice-1.0-py3-none-any.whl"'))), "malformed"),
        (lock(package("nice", "1.0", wheel("x", 'path = "/abs/nice-1.0-py3-none-any.whl"'))), "relative posix path"),
        (lock(package("nice", "1.0", wheel("x", 'path = "C:\\\\nice-1.0-py3-none-any.whl"'))), "relative posix path"),
        (lock(package("nice", "1.0", wheel("nice-1.0-py3-none-any.whl", extra=", size = -1"))), "negative"),
        (lock(package("nice", "1.0", wheel("nice-1.0-py3-none-any.whl", extra=", size = true"))), "wrong type"),
        (lock(package("nice", "1.0", wheel("nice-1.0-py3-none-any.whl").replace(HEX, "ab"))), "SHA-256 of"),
        (lock(package("nice", "1.0", wheel("nice-1.0-py3-none-any.whl").replace(f'"{HEX}"', "3"))), "SHA-256 of"),
        (lock(package("nice", "1.0", wheel("nice-1.0-py3-none-any.whl"), marker=ODD)), "a form that is not known"),
        (b'lock-version = "1.0"\nx = 1' + b"0" * 5000, "number"),
    ],
)
def test_a_hostile_lock_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        pylock.parse(data, "pylock.x.toml")
    diagnostic = caught.value.diagnostics[0]
    assert diagnostic.id == "bad-lock"
    assert message in diagnostic.message
    assert diagnostic.place is not None
    assert diagnostic.place.file == "pylock.x.toml"


def test_a_toml_error_has_its_place() -> None:
    with pytest.raises(SpecError) as caught:
        pylock.parse(b"a = 1\nb = ]\n", "pylock.x.toml")
    place = caught.value.diagnostics[0].place
    assert place is not None
    assert (place.line, place.column) == (2, 5)


def test_a_local_wheel_stays_in_the_workspace_or_a_declared_folder(tmp_path: Path) -> None:
    def locate(path: str) -> Path:
        entry = wheel("nice-1.0-py3-none-any.whl", f'path = "{path}/nice-1.0-py3-none-any.whl"')
        found = pylock.parse(lock(package("nice", "1.0", entry)), "x").packages[0].wheels[0]
        return pylock.local_path(
            found,
            lock_folder=tmp_path / "stack/requirements/app",
            workspace=tmp_path / "stack",
            wheel_folders=[tmp_path / "wheels"],
        )

    assert locate("../../dist").parent == tmp_path / "stack/dist"
    assert locate("../../../wheels").parent == tmp_path / "wheels"
    with pytest.raises(SpecError, match="outside the workspace"):
        locate("../../../stack-two")
