"""postprocess: uv's export becomes the layer's lock, with the same bytes for the same resolution."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata_engine.errors import SpecError
from strata_rules import pylock
from strata_rules.lock import postprocess, toml
from strata_rules.lock.pins import Lower, Pin
from strata_rules.lock.postprocess import LocalWheel
from strata_rules.lock.request import Request
from strata_rules.spec.uvconfig import LayerUvConfig

REQUEST = Request(
    layer="app-x",
    requirements=("nice",),
    python="3.11",
    platforms=("linux_x86_64", "win_amd64"),
    linux_target="glibc@2.28",
    macosx_target="13.0",
    uv=LayerUvConfig(root=Path("/stack"), settings={}, indexes=(), sources={}),
)
HEX = "ab" * 32


def entry(name: str, *files: str, marker: str | None = None, **more: object) -> str:
    wheels = [{"url": f"https://u:p@h.invalid/{f}", "size": 3, "hashes": {"sha256": HEX}} for f in files]
    table = {"name": name, "version": "1.0", **({"marker": marker} if marker else {}), **more}
    return "\n".join(["[[packages]]", *toml.lines({"wheels": wheels, **table}), ""])


def finish(*entries: str, lower: Lower | None = None) -> tuple[str, pylock.Pylock]:
    exported = 'lock-version = "1.0"\ncreated-by = "uv"\n' + "\n".join(entries)
    lower = lower or Lower([], REQUEST.targets)
    data = postprocess.finish(
        exported.encode(),
        REQUEST,
        lower,
        lambda url: LocalWheel("../../w/local-1.0-py3-none-any.whl", HEX) if url.startswith("file:") else None,
    )
    return data.decode(), pylock.parse(data, "x")


def test_markers_that_hold_everywhere_go_and_packages_that_match_nothing_go() -> None:
    _, lock = finish(
        entry("always", "always-1.0-py3-none-any.whl", marker="sys_platform == 'linux' or sys_platform == 'win32'"),
        entry("never", "never-1.0-py3-none-any.whl", marker="sys_platform == 'darwin'"),
        entry("some", "some-1.0-py3-none-any.whl", marker="sys_platform == 'win32'"),
        entry("patch", "patch-1.0-py3-none-any.whl", marker="python_full_version < '3.11.4'"),
    )
    assert {p.name: p.marker for p in lock.packages} == {
        "always": None,
        "patch": "python_full_version < '3.11.4'",
        "some": "sys_platform == 'win32'",
    }


def test_sources_logins_and_wheels_of_other_pythons_go() -> None:
    text, lock = finish(
        entry(
            "nice",
            "nice-1.0-cp311-cp311-win_amd64.whl",
            "nice-1.0-cp312-cp312-win_amd64.whl",
            "nice-1.0-cp38-abi3-musllinux_1_1_x86_64.whl",
            "nice-1.0-cp38-abi3-manylinux_2_28_x86_64.whl",
            "nice-1.0-pp311-pypy311_pp73-win_amd64.whl",
            sdist={"url": "https://h.invalid/nice-1.0.tar.gz", "hashes": {"sha256": HEX}},
            index="https://u:p@h.invalid/simple",
        )
    )
    assert "sdist" not in text
    assert "u:p@" not in text
    assert [wheel.file.split("-", 2)[2] for wheel in lock.packages[0].wheels] == [
        "cp311-cp311-win_amd64.whl",
        "cp38-abi3-manylinux_2_28_x86_64.whl",
        "cp38-abi3-musllinux_1_1_x86_64.whl",
    ]
    assert lock.packages[0].index == "https://h.invalid/simple"
    assert lock.requires_python == "==3.11.*"


def test_order_of_the_export_does_not_matter() -> None:
    one, two = entry("one", "one-1.0-py3-none-any.whl"), entry("two", "two-1.0-py3-none-any.whl")
    assert finish(one, two) == finish(two, one)


def test_local_wheels_are_relative_and_name_no_index() -> None:
    local = '[[packages]]\nname = "local"\nversion = "1.0"\nindex = "file:///abs/w"\n'
    local += 'wheels = [{ url = "file:///abs/w/local-1.0-py3-none-any.whl", hashes = {} }]\n'
    text, lock = finish(local)
    assert "/abs/" not in text
    assert lock.packages[0].wheels[0].path == "../../w/local-1.0-py3-none-any.whl"
    assert lock.packages[0].index is None


def test_a_package_shared_on_one_platform_is_split() -> None:
    lower = Lower([[Pin("nice", "1.0", "sys_platform == 'win32'")]], REQUEST.targets)
    _, lock = finish(entry("nice", "nice-1.0-py3-none-any.whl"), lower=lower)
    own, shared = sorted(lock.packages, key=lambda p: p.from_lower_layer)
    assert own.wheels
    assert not shared.wheels
    targets = REQUEST.targets
    assert [p for p in targets.platforms if targets.verdict(own.marker, p)] == ["linux_x86_64"]


def test_the_same_name_from_below_in_another_version_is_own() -> None:
    lower = Lower([[Pin("nice", "0.9")]], REQUEST.targets)
    _, lock = finish(entry("nice", "nice-1.0-py3-none-any.whl"), lower=lower)
    assert not lock.packages[0].from_lower_layer


def test_a_needed_wheel_without_sha256_is_refused_and_others_are_left_out() -> None:
    unhashed = '[[packages]]\nname = "nice"\nversion = "1.0"\nwheels = [{{ url = "https://h.invalid/{}" }}{}]\n'
    with pytest.raises(SpecError) as caught:
        finish(unhashed.format("nice-1.0-py3-none-any.whl", ""))
    assert caught.value.diagnostics[0].id == "no-sha256"
    good = f', {{ url = "https://h.invalid/nice-1.0-py3-none-any.whl", hashes = {{ sha256 = "{HEX}" }} }}'
    _, lock = finish(unhashed.format("nice-1.0-cp311-cp311-macosx_11_0_arm64.whl", good))
    assert [wheel.file for wheel in lock.packages[0].wheels] == ["nice-1.0-py3-none-any.whl"]


def test_outputs_follow_from_the_lock_alone() -> None:
    lower = Lower([[Pin("below", "1.0")]], REQUEST.targets)
    text, _ = finish(
        entry("nice", "nice-1.0-py3-none-any.whl"), entry("below", "below-1.0-py3-none-any.whl"), lower=lower
    )
    files = postprocess.outputs(text.encode(), REQUEST)
    assert set(files) == {"pylock.toml", "pins.json", "packages.txt", "requirements.in"}
    assert files["pins.json"] == b'[{"name":"nice","version":"1.0"}]\n'
    assert files["packages.txt"].decode().splitlines()[2:] == [
        "nice==1.0",
        "",
        "# Shared packages inherited from other layers",
        "below==1.0",
    ]
    assert files["requirements.in"].endswith(b"\nnice\n")
    assert pylock.parse(postprocess.empty(REQUEST), "x").packages == ()
