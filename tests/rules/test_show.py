import json
from pathlib import Path

import pytest

from strata_rules.spec.load import load_stack
from strata_rules.spec.show import LayerStatus, show_json, show_text

STACK = """\
[[runtimes]]
name = "py[red]"
python_implementation = "cpython@3.12.9"
requirements = []
[[frameworks]]
name = "lower"
runtime = "py[red]"
requirements = []
versioned = true
[[frameworks]]
name = "upper"
frameworks = ["lower"]
requirements = []
[[applications]]
name = "one"
frameworks = ["upper"]
requirements = []
launch_module = "one.py"
versioned = true
[[applications]]
name = "two"
runtime = "py[red]"
requirements = []
launch_module = "two.py"
"""

STATUSES = {
    "py[red]": LayerStatus(has_valid_lock=True, lock_version=1, operations=("lock", "build")),
    "framework-lower": LayerStatus(has_valid_lock=True, lock_version=3),
    "framework-upper": LayerStatus(has_valid_lock=False, lock_version=1, operations=("build",)),
    "app-two": LayerStatus(has_valid_lock=True),
}


@pytest.fixture
def stack():
    return load_stack(Path("stack.toml"), lambda path: STACK.encode(), probe=lambda path: False, env={})


ALL = ["py[red]", "framework-lower", "framework-upper", "app-one", "app-two"]


def test_the_tree(stack):
    assert (
        show_text(stack, STATUSES, selected=ALL)
        == f"""\
{stack.path}
├── Runtimes
│   └── py[red] (lock, build)
├── Frameworks
│   ├── framework-lower -> framework-lower@3
│   │   └── py[red]
│   └── *framework-upper (build)
│       ├── framework-lower -> framework-lower@3
│       └── py[red]
└── Applications
    ├── *app-one -> app-one@???
    │   ├── *framework-upper
    │   ├── framework-lower -> framework-lower@3
    │   └── py[red]
    └── app-two
        └── py[red]
"""
    )


def test_the_tree_of_a_part_in_ascii(stack):
    assert (
        show_text(stack, STATUSES, selected=["app-two"], ascii_only=True)
        == f"""\
{stack.path}
|-- Runtimes
|-- Frameworks
`-- Applications
    `-- app-two
        `-- py[red]
"""
    )


def test_what_is_selected(stack):
    assert (
        show_text(stack, STATUSES, selected=["py[red]", "framework-upper"], dependencies=False)
        == f"""\
{stack.path}
├── Runtimes
│   └── py[red] (lock, build)
├── Frameworks
│   └── *framework-upper (build)
└── Applications
"""
    )


def test_an_empty_stack():
    stack = load_stack(Path("stack.toml"), lambda path: b"", probe=lambda path: False, env={})
    assert show_text(stack, {}, selected=[]) == f"{stack.path}\n├── Runtimes\n├── Frameworks\n└── Applications\n"
    assert show_json(stack, {}, selected=[])["applications"] == []


def test_the_version_of_a_lock_that_is_not_valid_is_not_told(stack):
    stale = {"framework-lower": LayerStatus(has_valid_lock=False, lock_version=3)}
    [entry] = show_json(stack, stale, selected=["framework-lower"])["frameworks"]
    assert entry["install_target"] == "framework-lower@???"


def layer(name, target=None, *, valid=True, **more):
    return {"name": name, "install_target": target or name, "has_valid_lock": valid, **more}


def test_the_document(stack):
    document = show_json(stack, STATUSES, selected=["py[red]", "framework-upper", "app-one"])
    runtime = layer("py[red]", selected_operations=None)
    lower = layer("framework-lower", "framework-lower@3", selected_operations=None)
    upper = layer("framework-upper", valid=False, selected_operations=None)
    assert json.loads(json.dumps(document)) == {
        "spec_name": str(Path("stack.toml").absolute()),
        "runtimes": [layer("py[red]", selected_operations=["lock", "build"])],
        "frameworks": [
            layer("framework-upper", valid=False, selected_operations=["build"], dependencies=[lower, runtime])
        ],
        "applications": [
            layer(
                "app-one",
                "app-one@???",
                valid=False,
                selected_operations=None,
                dependencies=[upper, lower, runtime],
            )
        ],
    }
    [short] = show_json(stack, STATUSES, selected=["app-two"], dependencies=False)["applications"]
    assert short == layer("app-two", selected_operations=None)
