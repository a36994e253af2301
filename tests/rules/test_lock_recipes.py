"""venvstacks' hashes: the values here are what venvstacks itself gives for the same input."""

from __future__ import annotations

from strata_rules.lock import recipes
from strata_rules.pylock import parse

LOCK = f"""lock-version = "1.0"
created-by = "x"
requires-python = "==3.11.*"

[[packages]]
name = "alpha"
version = "1.0"
index = "https://index.invalid/simple"
wheels = [{{ url = "https://index.invalid/alpha-1.0-py3-none-any.whl", hashes = {{ sha256 = "{"ab" * 32}" }} }}]

[[packages]]
name = "beta"
version = "2.0"
marker = "sys_platform == 'from_lower_layer'"

[[packages]]
name = "delta"
version = "2.0"
marker = "sys_platform == 'win32' and sys_platform == 'from_lower_layer'"

[[packages]]
name = "gamma"
version = "3.0"
marker = "(platform_machine == 'x86_64' and sys_platform == 'linux') or sys_platform == 'win32'"
wheels = [{{ path = "../../w/gamma-3.0-py3-none-any.whl", hashes = {{ sha256 = "{"cd" * 32}" }} }}]
"""


def test_requirements_hash() -> None:
    expected = "sha256:6da1458588ae437b7441db67fb96e8b4d26f8ccdf4cd04d8c3c3e03e0ed8c589"
    assert recipes.requirements_hash(parse(LOCK.encode(), "x")) == expected


def test_lock_input_hash_does_not_mind_the_order() -> None:
    lines = ['rich; sys_platform=="win32"', "numpy<2"]
    expected = "sha256:a0ba8308552d9265f2eefcae8ce8e56248c93a36b4bea29d8debecfb2c71ff6c"
    assert recipes.lock_input_hash(lines) == recipes.lock_input_hash(lines[::-1]) == expected


def test_other_inputs_hash_names_a_target_only_where_it_has_a_platform() -> None:
    both = recipes.other_inputs_hash(
        python="3.11",
        platforms=("linux_x86_64", "macosx_arm64"),
        linux_target="glibc@2.28",
        macosx_target="13.0",
        lower=("cpython-3.11", "base"),
    )
    assert both == "sha256:b695c2f610aef07f5e4065dc5808bee6aa93d0a2f07de1e517eff6c48ea715ce"
    windows = recipes.other_inputs_hash(
        python="3.11", platforms=("win_amd64",), linux_target="x", macosx_target="y", lower=()
    )
    assert windows == recipes.hash_strings(["py_version=3.11"])


def test_version_inputs_hash() -> None:
    plain = recipes.version_inputs_hash("app-x", versioned=True, modules=["sha256:1"])
    assert plain == recipes.hash_strings(["env_name=app-x", "is_versioned_layer=True", "sha256:1"])
