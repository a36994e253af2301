from pathlib import Path

import pytest

from strata_engine.errors import SpecError, render
from strata_rules.spec.folders import check_platforms, check_targets, install_target
from strata_rules.spec.load import load_stack


def runtime(name, more=""):
    return f'[[runtimes]]\nname = "{name}"\npython_implementation = "cpython@3.12.9"\nrequirements = []\n{more}'


def load(*tables):
    path = Path("stack.toml")
    return load_stack(path, lambda _: "".join(tables).encode(), name="stack.toml", probe=lambda _: False, env={})


def test_layers_that_would_be_deployed_in_one_folder_are_refused_once_they_would_be():
    stack = load(runtime("py", "versioned = true\n"), runtime("PY@2"), runtime("py@3", "platforms = []\n"))
    versioned, other, _ = stack.layers
    assert (install_target(versioned, {"py": 2}), install_target(other, {})) == ("py@2", "PY@2")
    for version in (1, 3):
        check_targets(stack.layers, {"py": version})
    check_targets(stack.layers, {})
    with pytest.raises(SpecError) as caught:
        check_targets(stack.layers, {"py": 2})
    assert (
        render(caught.value.diagnostics[0])
        == """\
error[shared-target]: `py` and `PY@2` would both be deployed in the folder `PY@2`
  --> stack.toml:7:8
   |
 7 | name = "PY@2"
   |        ^^^^^^
note: the lock of `py` has version 2
hint: give one of them another name"""
    )


def test_a_runtime_may_be_called_as_a_platform_unless_layers_are_built_for_that():
    stack = load(runtime("py"), runtime("Win_AMD64"))
    check_platforms(stack, ("linux_x86_64", "win_arm64"), "linux_x86_64")
    check_platforms(stack, ("win_amd64",), "win_amd64")
    with pytest.raises(SpecError) as caught:
        check_platforms(stack, ("linux_x86_64", "win_amd64"), "linux_x86_64")
    assert (
        render(caught.value.diagnostics[0])
        == """\
error[platform-name]: runtime `Win_AMD64` is called as the folder of layers for `win_amd64`
  --> stack.toml:6:8
   |
 6 | name = "Win_AMD64"
   |        ^^^^^^^^^^^
hint: give it another name, such as `python-Win_AMD64`, or do not build for that platform here"""
    )
