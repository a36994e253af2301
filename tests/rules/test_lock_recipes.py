"""venvstacks' hashes: the values here are what venvstacks 0.8 itself gives for the same input."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from strata_rules.lock import recipes
from strata_rules.lock.recipes import Targets

SHARED = "sys_platform == 'from_lower_layer'"

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
marker = "{SHARED}"

[[packages]]
name = "delta"
version = "2.0"
marker = "sys_platform == 'win32' and {SHARED}"

[[packages]]
name = "gamma"
version = "3.0"
marker = "(platform_machine == 'x86_64' and sys_platform == 'linux') or sys_platform == 'win32'"
wheels = [{{ path = "../../w/gamma-3.0-py3-none-any.whl", hashes = {{ sha256 = "{"cd" * 32}" }} }}]
"""

ODD = f"""lock-version = "1.0"

[[packages]]
name = "local-version"
version = "2.0.0+cpu"
index = "https://index.invalid/cpu"

[[packages.wheels]]
url = "https://index.invalid/local_version-2.0.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl#fragment"
hashes = {{ sha512 = "12", sha256 = "34" }}

[[packages.wheels]]
name = "named-1-py3-none-any.whl"
url = "https://index.invalid/other.whl"
hashes = {{ }}

[[packages]]
name = "on-disk"
version = "1.0.0-1"
index = "file:///somewhere/wheels"
marker = "('linux' in sys_platform) and (os_name == \\"posix\\" or python_version < '3.12')"
wheels = [
    {{ path = "../../wheels/on_disk-1.0.0.post1-py3-none-any.whl", hashes = {{ }} }},
    {{ url = "file:///somewhere/on%20disk-1.0-py3-none-any.whl", hashes = {{ sha256 = "56" }} }},
]

[[packages]]
name = "grouped"
version = "1"
marker = "((sys_platform == 'linux' or os_name == 'nt') and (python_version < '3.12')) and {SHARED}"
wheels = [{{ url = "https://index.invalid/grouped-1-py3-none-any.whl", hashes = {{ sha256 = "78" }} }}]

[[packages]]
name = "single"
version = "1"
marker = "(sys_platform == 'linux') and {SHARED}"
"""


@pytest.mark.parametrize(
    ("lock", "expected"),
    [
        (LOCK, "sha256:6da1458588ae437b7441db67fb96e8b4d26f8ccdf4cd04d8c3c3e03e0ed8c589"),
        (LOCK.replace("\n", "\r\n"), "sha256:6da1458588ae437b7441db67fb96e8b4d26f8ccdf4cd04d8c3c3e03e0ed8c589"),
        (ODD, "sha256:53f27f3a0061956d8acb0116e12aab64630e3ce17503c4c80ccf9928d2bb24b0"),
        ("packages = []", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ],
)
def test_requirements_hash(lock: str, expected: str) -> None:
    assert recipes.requirements_hash(tomllib.loads(lock)) == expected


@pytest.mark.parametrize(
    "document",
    [
        {"packages": 3},
        {"packages": [3]},
        {"packages": [{"name": "a"}]},
        {"packages": [{"name": "a", "version": "one"}]},
        {"packages": [{"name": "a", "version": "1", "marker": "nonsense"}]},
        {"packages": [{"name": "a", "version": "1", "wheels": [{"url": "https://h/a.whl"}]}]},
        {"packages": [{"name": "a", "version": "1", "wheels": [{"hashes": {}, "url": 3}]}]},
    ],
)
def test_what_venvstacks_could_not_hash_has_no_hash(document: dict[str, Any]) -> None:
    assert recipes.requirements_hash(document) is None


def test_lock_input_hash_does_not_mind_the_order() -> None:
    lines = ['rich; sys_platform=="win32"', "numpy<2"]
    expected = "sha256:a0ba8308552d9265f2eefcae8ce8e56248c93a36b4bea29d8debecfb2c71ff6c"
    assert recipes.lock_input_hash(lines) == recipes.lock_input_hash(lines[::-1]) == expected


def test_lock_input_hash_reads_requirements_as_lines_of_a_file() -> None:
    assert recipes.lock_input_hash(["scipy", "httpx"]) == recipes.lock_input_hash(
        [" scipy # why", "httpx \\", "# only a comment", "x --hash=sha256:ab"]
    )


def test_other_inputs_hash_has_the_targets_that_are_stated() -> None:
    both = recipes.other_inputs_hash(
        python="3.11", targets=Targets("glibc@2.28", "13.0"), lower=("cpython-3.11", "base")
    )
    assert both == "sha256:b695c2f610aef07f5e4065dc5808bee6aa93d0a2f07de1e517eff6c48ea715ce"
    plain = recipes.other_inputs_hash(python="3.11", targets=Targets(), lower=("cpython-3.11",))
    assert plain == "sha256:c4aa5ec33ef4d68a90d7de6fd1373840a66e17f037e4b5e313f991500137ea7b"


def test_version_inputs_hash() -> None:
    plain = recipes.version_inputs_hash("app-x", versioned=True, modules=["sha256:1"])
    assert plain == recipes.hash_strings(["env_name=app-x", "is_versioned_layer=True", "sha256:1"])
    runtime = recipes.version_inputs_hash("cpython-3.12", versioned=True)
    assert runtime == "sha256:d3784f3ad3dc2de10e59062272f2bdc74d13de2afb06146d6dd7db7e1ade011f"
