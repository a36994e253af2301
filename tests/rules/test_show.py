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


def test_the_tree(stack):
    assert (
        show_text(stack, STATUSES)
        == """\
stack.toml
├── Runtimes
│   └── py[red] (lock, build)
├── Frameworks
│   ├── framework-lower -> framework-lower@3
│   │   └── py[red]
│   └── *framework-upper (build)
│       ├── framework-lower@3
│       └── py[red]
└── Applications
    ├── *app-one -> app-one@???
    │   ├── framework-upper
    │   ├── framework-lower@3
    │   └── py[red]
    └── app-two
        └── py[red]

* no valid lock
"""
    )


def test_the_tree_of_a_part_in_ascii(stack):
    assert (
        show_text(stack, STATUSES, selected=["app-two"], ascii_only=True)
        == """\
stack.toml
`-- Applications
    `-- app-two
        `-- py[red]
"""
    )


def test_an_empty_stack():
    stack = load_stack(Path("stack.toml"), lambda path: b"", probe=lambda path: False, env={})
    assert show_text(stack, {}) == "stack.toml\n"
    assert show_json(stack, {})["applications"] == []


def test_the_document(stack):
    document = show_json(stack, STATUSES, selected=["py[red]", "framework-upper", "app-one"])
    assert json.loads(json.dumps(document)) == {
        "schema": "strata.show",
        "version": 1,
        "spec_name": "stack.toml",
        "runtimes": [
            {
                "name": "py[red]",
                "install_target": "py[red]",
                "has_valid_lock": True,
                "selected_operations": ["lock", "build"],
            }
        ],
        "frameworks": [
            {
                "name": "framework-upper",
                "install_target": "framework-upper",
                "has_valid_lock": False,
                "selected_operations": ["build"],
                "dependencies": ["framework-lower@3", "py[red]"],
            }
        ],
        "applications": [
            {
                "name": "app-one",
                "install_target": "app-one@???",
                "has_valid_lock": False,
                "selected_operations": [],
                "dependencies": ["framework-upper", "framework-lower@3", "py[red]"],
            }
        ],
    }
