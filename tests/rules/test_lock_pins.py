"""Pins and markers: what lower layers provide on which platform, and the constraints that follow."""

from __future__ import annotations

import pytest

from strata_engine.errors import InternalError
from strata_rules.lock.markers import Targets, both
from strata_rules.lock.pins import Lower, Pin, dump, load

TARGETS = Targets(("linux_x86_64", "macosx_arm64", "win_amd64"), "3.12")
WIN = "sys_platform == 'win32'"


def test_markers_have_three_answers() -> None:
    assert TARGETS.verdict(None, "win_amd64") is True
    assert TARGETS.verdict(WIN, "win_amd64") is True
    assert TARGETS.verdict(WIN, "linux_x86_64") is False
    assert TARGETS.verdict("python_full_version < '3.12.4'", "linux_x86_64") is None


def test_a_marker_for_some_platforms_holds_there_alone() -> None:
    for some in (["win_amd64"], ["linux_x86_64", "macosx_arm64"]):
        marker = TARGETS.only(some)
        assert [p for p in TARGETS.platforms if TARGETS.verdict(marker, p)] == some
        joined = both("sys_platform == 'win32' or sys_platform == 'linux'", marker)
        expected = [p for p in some if not p.startswith("macosx")]
        assert [p for p in TARGETS.platforms if TARGETS.verdict(joined, p)] == expected


def test_the_first_unconditional_provider_shadows_later_ones() -> None:
    lower = Lower([[Pin("nice", "1.0")], [Pin("nice", "2.0"), Pin("more", "1.0", WIN)]], TARGETS)
    assert lower.constraints == ["nice==1.0", f"more==1.0 ; {WIN}"]
    assert lower.provides(Pin("nice", "1.0"), "linux_x86_64")
    assert not lower.provides(Pin("nice", "2.0"), "linux_x86_64")
    assert lower.provides(Pin("more", "1.0"), "win_amd64")
    assert not lower.provides(Pin("more", "1.0"), "linux_x86_64")


def test_a_conditional_provider_shadows_on_its_platforms_only() -> None:
    lower = Lower([[Pin("nice", "1.0", WIN)], [Pin("nice", "2.0")]], TARGETS)
    first, second = lower.constraints
    assert first == f"nice==1.0 ; {WIN}"
    marker = second.removeprefix("nice==2.0 ; ")
    assert [p for p in TARGETS.platforms if TARGETS.verdict(marker, p)] == ["linux_x86_64", "macosx_arm64"]
    assert lower.provides(Pin("nice", "1.0"), "win_amd64")
    assert lower.provides(Pin("nice", "2.0"), "linux_x86_64")


def test_what_depends_on_the_patch_release_is_shared_only_under_the_same_marker() -> None:
    unsettled = Pin("nice", "1.0", "python_full_version < '3.12.4'")
    lower = Lower([[unsettled]], TARGETS)
    assert lower.constraints == [str(unsettled)]
    assert lower.provides(unsettled, "linux_x86_64")
    assert not lower.provides(Pin("nice", "1.0"), "linux_x86_64")


def test_pins_survive_writing_and_reading() -> None:
    pins = [Pin("a", "1.0"), Pin("b", "2.0", WIN)]
    assert load(dump(pins)) == pins
    assert b"null" not in dump(pins)
    with pytest.raises(InternalError):
        load(b"[1]")
