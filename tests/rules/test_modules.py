from pathlib import Path

import pytest

from strata_engine.action import Source, SourceTree
from strata_engine.errors import SpecError, render
from strata_rules.spec.load import load_stack
from strata_rules.spec.modules import application_modules

RUNTIME = '[[runtimes]]\nname = "py"\npython_implementation = "cpython@3.12.9"\nrequirements = []\n'


def application(launch, *support, name="app"):
    return (
        f'[[applications]]\nname = "{name}"\nruntime = "py"\nrequirements = []\n'
        f'launch_module = "{launch}"\nsupport_modules = {list(support)}\n'
    )


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "work" / "stack"
    root.mkdir(parents=True)
    return root


def write(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("")


def modules(root, *applications):
    (root / "venvstacks.toml").write_text(RUNTIME + "".join(applications))
    stack = load_stack(root / "venvstacks.toml", Path.read_bytes, name="venvstacks.toml", env={})
    return application_modules(stack, Path.read_bytes, Path.exists)


def problems(root, *applications):
    with pytest.raises(SpecError) as caught:
        modules(root, *applications)
    return "\n\n".join(render(each) for each in caught.value.diagnostics)


def files(module):
    """List what the engine would capture."""

    def visit(place, prefix=""):
        for entry in sorted(place.iterdir()):
            if module.input.accept(f"{prefix}{entry.name}", entry.is_dir()):
                if entry.is_dir():
                    yield from visit(entry, f"{prefix}{entry.name}/")
                else:
                    yield f"{prefix}{entry.name}"

    return list(visit(module.path))


def test_files_and_folders_become_inputs(folder):
    write(folder, "src/run.py", "src/lib/__init__.py", "b.py", "../shared/util.py")
    found = modules(folder, application("src/run.py", "src/lib", "b.py", "../shared/util.py"))["app-app"]
    assert (found.launch.import_name, found.launch.file_name) == ("run", "run.py")
    assert found.launch.input == Source("src/run.py")
    by_name = {module.import_name: module for module in found.support}
    assert list(by_name) == ["util", "b", "lib"]
    write(folder, "lib-x.py", "notes.txt", "B.py")
    found = modules(folder, application("notes.txt", "src/lib", "lib-x.py", "b.py", "src/run.py", "B.py"))["app-app"]
    assert found.launch.file_name == "notes.txt"
    # As venvstacks sorts them, by their text: the version of a lock depends on it.
    assert [module.file_name for module in found.support] == ["B.py", "b.py", "lib-x.py", "lib", "run.py"]
    assert by_name["util"].input == Source(str(folder.parent / "shared" / "util.py"))
    assert isinstance(by_name["lib"].input, SourceTree)
    assert (by_name["lib"].input.path, by_name["lib"].file_name) == ("src/lib", "lib")
    assert by_name["lib"].path == folder / "src" / "lib"


PACKAGE = [
    "pack/__init__.py",
    "pack/data.bin",
    "pack/debug.log",
    "pack/kept.log",
    "pack/__pycache__/x.cpython-312.pyc",
    "pack/old.pyc",
    "pack/.gitattributes",
    "pack/sub/.gitignore",
    "pack/sub/made.py",
    "pack/sub/mod.py",
]


def test_without_git_only_caches_of_bytecode_are_left_out(folder):
    write(folder, *PACKAGE)
    assert files(modules(folder, application("pack"))["app-app"].launch) == [
        ".gitattributes",
        "__init__.py",
        "data.bin",
        "debug.log",
        "kept.log",
        "old.pyc",
        "sub/.gitignore",
        "sub/made.py",
        "sub/mod.py",
    ]


def test_what_git_ignores_is_left_out(folder):
    write(folder, *PACKAGE, "../.git/HEAD", "../.gitignore")
    (folder.parent / ".gitignore").write_text("*.log\n!kept.log\n")
    (folder / "pack" / "sub" / ".gitignore").write_text("/made.py\n")
    assert files(modules(folder, application("pack"))["app-app"].launch) == [
        "__init__.py",
        "data.bin",
        "kept.log",
        "old.pyc",
        "sub/mod.py",
    ]


def test_empty_folders_are_kept_if_git_keeps_them(folder):
    write(folder, "pack/__init__.py", "pack/out/.gitkeep", "pack/logs/.gitignore", "pack/logs/x.log")
    write(folder, "pack/gone/__pycache__/x.pyc", "pack/deep/inner/.gitkeep")
    (folder / "pack" / "void").mkdir()
    (folder / "pack" / "logs" / ".gitignore").write_text("*\n!.gitignore\n")
    empty = modules(folder, application("pack"))["app-app"].launch.input.empty
    assert all(empty(path) for path in ("out", "logs", "gone", "void", "deep"))
    write(folder, ".git/HEAD")
    (folder / ".gitignore").write_text("__pycache__/\n")
    empty = modules(folder, application("pack"))["app-app"].launch.input.empty
    kept = {path for path in ("out", "logs", "gone", "void", "deep", "deep/inner") if empty(path)}
    assert kept == {"out", "logs", "deep", "deep/inner"}


def test_a_single_file_is_shipped_even_if_git_ignores_it(folder):
    write(folder, "app.py", ".git/HEAD")
    (folder / ".gitignore").write_text("*\n")
    assert modules(folder, application("app.py"))["app-app"].launch.input == Source("app.py")


def test_a_folder_that_git_ignores_as_a_whole_is_refused(folder):
    write(folder, "made/pack/__init__.py", ".git/HEAD")
    (folder / ".gitignore").write_text("made/\n")
    assert (
        problems(folder, application("made/pack"))
        == """\
error[ignored-module]: the launch module `made/pack` is a folder that git ignores: nothing of it would be shipped
  --> venvstacks.toml:9:17
   |
 9 | launch_module = "made/pack"
   |                 ^^^^^^^^^^^
hint: bring it back in `.gitignore` with a `!` pattern"""
    )


def test_all_problems_of_all_applications_are_reported_together(folder):
    write(folder, "app.py", "lib/app.py", "x/util.py", "y/util/__init__.py", "notes.txt")
    assert (
        problems(
            folder,
            application("app.py", "lib/app.py", "x/util.py", "y/util"),
            application("gone.py", "gone", name="b"),
            application(" ", ".", name="c"),
        )
        == """\
error[module-conflict]: launch module `app` conflicts with a support module in application `app`
   --> venvstacks.toml:10:20
    |
 10 | support_modules = ['lib/app.py', 'x/util.py', 'y/util']
    |                    ^^^^^^^^^^^^
note: `app.py` is imported as `app` too

error[module-conflict]: conflicting support module names in application `app`: `util`
   --> venvstacks.toml:10:47
    |
 10 | support_modules = ['lib/app.py', 'x/util.py', 'y/util']
    |                                               ^^^^^^^^
note: `x/util.py` is imported as `util` too

error[missing-module]: the launch module `gone.py` does not exist
   --> venvstacks.toml:15:17
    |
 15 | launch_module = "gone.py"
    |                 ^^^^^^^^^
hint: paths start from the folder of the stack file

error[module-conflict]: launch module `gone` conflicts with a support module in application `b`
   --> venvstacks.toml:16:20
    |
 16 | support_modules = ['gone']
    |                    ^^^^^^
note: `gone.py` is imported as `gone` too

error[missing-module]: the support module `gone` does not exist
   --> venvstacks.toml:16:20
    |
 16 | support_modules = ['gone']
    |                    ^^^^^^
hint: paths start from the folder of the stack file

error[bad-module]: ` ` is not the path of a launch module
   --> venvstacks.toml:21:17
    |
 21 | launch_module = " "
    |                 ^^^

error[bad-module]: `.` is not the path of a support module
   --> venvstacks.toml:22:20
    |
 22 | support_modules = ['.']
    |                    ^^^"""
    )
