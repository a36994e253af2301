import platform
import sysconfig

import pytest
from packaging import tags
from packaging.markers import Marker, default_environment

from strata_rules.platforms import (
    PLATFORMS,
    host_platform,
    marker_environment,
    parse_linux_target,
    parse_macosx_target,
    platform_of,
    supported_tags,
    uv_platform,
)


@pytest.mark.parametrize(
    ("build", "arch", "expected"),
    [
        ("linux-x86_64", "x86_64", "linux_x86_64"),
        ("linux-aarch64", "aarch64", "linux_aarch64"),
        ("linux-arm64", "arm64", "linux_aarch64"),
        ("macosx-10.9-universal2", "arm64", "macosx_arm64"),
        ("macosx-13.0-x86_64", "x86_64", "macosx_x86_64"),
        ("win-amd64", "AMD64", "win_amd64"),
        ("win-arm64", "ARM64", "win_arm64"),
        ("linux-i686", "x86_64", None),
        ("win32", "x86", None),
        ("freebsd-14.0-amd64", "amd64", None),
    ],
)
def test_platforms_are_told_from_what_python_says(build, arch, expected):
    assert platform_of(build, arch) == expected


def test_the_tags_for_this_machine_are_those_that_packaging_finds_on_it():
    host = host_platform()
    libc, version = platform.libc_ver()
    if not host.startswith("linux_") or libc != "glibc":
        pytest.skip("only Linux tags depend on a version that can be asked for")
    python = sysconfig.get_python_version()
    ours = supported_tags(host, python, linux_target=f"glibc@{version}")
    theirs = list(tags.sys_tags())
    bare = host
    assert set(ours) == set(theirs)
    # The bare `linux_ARCH` is ranked last and not first: uv does so, and installs are compared with uv's.
    assert [tag for tag in ours if tag.platform != bare] == [tag for tag in theirs if tag.platform != bare]


@pytest.mark.parametrize(
    ("target", "python", "options", "good", "bad"),
    [
        ("linux_x86_64", "3.12", {}, "cp312-cp312-manylinux_2_28_x86_64", "cp312-cp312-manylinux_2_31_x86_64"),
        ("linux_x86_64", "3.12", {}, "cp39-abi3-manylinux1_x86_64", "cp313-abi3-manylinux1_x86_64"),
        ("linux_x86_64", "3.12", {}, "cp312-cp312-linux_x86_64", "cp312-cp312-musllinux_1_2_x86_64"),
        ("linux_aarch64", "3.11", {}, "py3-none-manylinux2014_aarch64", "py3-none-manylinux1_aarch64"),
        (
            "linux_aarch64",
            "3.11",
            {"linux_target": "glibc@2.17"},
            "cp311-cp311-manylinux2014_aarch64",
            "cp311-cp311-manylinux_2_18_aarch64",
        ),
        ("macosx_arm64", "3.13", {}, "cp313-cp313-macosx_11_0_arm64", "cp313-cp313-macosx_14_0_arm64"),
        ("macosx_arm64", "3.13", {}, "cp313-cp313-macosx_10_9_universal2", "cp313-cp313-macosx_10_9_x86_64"),
        (
            "macosx_x86_64",
            "3.13",
            {"macosx_target": "14"},
            "cp313-cp313-macosx_14_0_x86_64",
            "cp313-cp313-macosx_11_0_arm64",
        ),
        ("win_amd64", "3.11", {}, "cp311-cp311-win_amd64", "cp311-cp311-win32"),
        ("win_arm64", "3.11", {}, "py3-none-any", "cp311-cp311-win_amd64"),
        (
            "linux_x86_64",
            "3.11",
            {"implementation": "pypy"},
            "pp311-pypy311_pp73-manylinux_2_28_x86_64",
            "cp311-cp311-manylinux_2_28_x86_64",
        ),
    ],
)
def test_wheels_are_taken_as_far_as_the_target_goes(target, python, options, good, bad):
    found = [str(tag) for tag in supported_tags(target, python, **options)]
    assert good in found
    assert bad not in found
    assert found[-1] == "py30-none-any"


def test_newer_and_more_specific_wheels_come_first():
    found = [str(tag) for tag in supported_tags("linux_x86_64", "3.12")]
    ranked = [
        "cp312-cp312-manylinux_2_28_x86_64",
        "cp312-cp312-manylinux_2_17_x86_64",
        "cp312-cp312-manylinux2014_x86_64",
        "cp312-cp312-linux_x86_64",
        "cp312-abi3-manylinux_2_28_x86_64",
        "cp312-none-any",
        "py3-none-any",
    ]
    present = [tag for tag in ranked if tag in found]
    assert sorted(present, key=found.index) == present
    assert set(ranked) - set(present) <= {"cp312-none-any"}


def test_markers_see_this_machine_as_it_is():
    ours = marker_environment(host_platform(), platform.python_version())
    theirs = default_environment()
    differ = {name for name in theirs if ours[name] != theirs[name]}
    assert ours.keys() == theirs.keys()
    assert differ <= {"platform_release", "platform_version"}


@pytest.mark.parametrize(
    ("marker", "matching"),
    [
        ("sys_platform == 'win32' and platform_machine == 'AMD64'", {"win_amd64"}),
        ("platform_machine == 'ARM64'", {"win_arm64"}),
        ("platform_machine in 'arm64 aarch64'", {"linux_aarch64", "macosx_arm64"}),
        ("sys_platform == 'darwin' and platform_system == 'Darwin'", {"macosx_arm64", "macosx_x86_64"}),
        ("os_name == 'posix' and python_version < '3.13'", {n for n in PLATFORMS if "win_" not in n}),
        ("python_full_version >= '3.12.10'", set()),
        ("platform_release >= '20'", set()),
    ],
)
def test_markers_tell_platforms_apart(marker, matching):
    found = {name for name in PLATFORMS if Marker(marker).evaluate(marker_environment(name, "3.12.9"))}
    assert found == matching


def test_pypy_has_names_of_its_own():
    environment = marker_environment("linux_x86_64", "3.11.13", "pypy")
    assert Marker("platform_python_implementation == 'PyPy'").evaluate(environment)
    assert Marker("implementation_name == 'pypy'").evaluate(environment)


@pytest.mark.parametrize(
    ("target", "linux", "expected"),
    [
        ("linux_x86_64", "glibc", "x86_64-manylinux_2_28"),
        ("linux_x86_64", "glibc@2.35", "x86_64-manylinux_2_35"),
        ("linux_aarch64", "glibc@2.30", "aarch64-manylinux_2_28"),
        ("linux_aarch64", "glibc@2.12", "aarch64-manylinux_2_17"),
        ("win_amd64", "glibc", "x86_64-pc-windows-msvc"),
        ("win_arm64", "glibc", "aarch64-pc-windows-msvc"),
        ("macosx_arm64", "glibc", "aarch64-apple-darwin"),
        ("macosx_x86_64", "glibc", "x86_64-apple-darwin"),
    ],
)
def test_uv_knows_the_platform_by_a_name_of_its_own(target, linux, expected):
    assert uv_platform(target, linux) == expected


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_linux_target, "musl@1.2", "Linux libc variant must be one of `glibc`, not `musl`"),
        (parse_linux_target, "glibc@2", "Linux libc version must be of the form `X.Y`, not `2`"),
        (parse_linux_target, "glibc@", "Linux libc version must be of the form `X.Y`, not ``"),
        (parse_macosx_target, "13.0.1.1", "macOS target must be of the form `MAJOR` or `MAJOR.MINOR`, not `13.0.1.1`"),
        (parse_macosx_target, "ventura", "macOS target must be of the form `MAJOR` or `MAJOR.MINOR`, not `ventura`"),
    ],
)
def test_a_bad_target_says_what_was_expected(parse, text, message):
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert str(caught.value) == message
