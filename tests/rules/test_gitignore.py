import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata_rules.spec.gitignore import find_work_tree, tracked_files

GIT = shutil.which("git")

PATTERNS = st.one_of(
    st.sampled_from(
        ["*", "*/", "**/", "/*", "/**", "//", "/", "?", "*.x", "!*.x", "a.x", "!a.x", "!*/", "!", "a.x\\ "]
    ),
    st.sampled_from(["a", "a/", "/a", "/a/", "!a", "!a/", "!/a/b", "a/b", "a/*", "a/**", "a/**/", "**/a", "**/a/b"]),
    st.sampled_from(["b", "b/", "!b/", "c", "c/", "!c", "!/**/c", "a/b/", "/a/b/c", "a/**/c", "a2", "a2/", "a2/*"]),
    st.sampled_from(["[[:alpha:]]", "[[:digit:]a].x", "[[]", "[^a]", "[!a]", "[ab]", "[z-a]", "[ab", "!a2/b", "b2/**"]),
    st.sampled_from(["", "a ", "a\r", "\\", "# c", "#h", "\\#h", "\\!n", "!b2/a/"]),
)
FILES = [
    "a.x",
    "a",
    "b",
    "#h",
    "!n",
    "c/a",
    "c/b/a.x",
    "a.x ",
    "a2/b/c",
    "a2/b/a.x",
    "a2/c",
    "b2/a/b/c",
    "b2/a/a.x",
    "b2/b",
]
IGNORE_FILES = st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(PATTERNS, max_size=5)
        for name in (".gitignore", "a2/.gitignore", "a2/b/.gitignore", "b2/.gitignore", ".git/info/exclude")
    },
)


def git(*arguments, cwd, text=None):
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "HOME": str(cwd)}
    done = subprocess.run([GIT, *arguments], cwd=cwd, env=env, input=text, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def walk(tree, folder, prefix=""):
    """Ask about each folder before what is in it, as the engine does."""
    for entry in sorted(folder.iterdir()):
        if entry.name != ".git" and not tree.ignores(entry, is_folder=entry.is_dir()):
            if entry.is_dir():
                yield from walk(tree, entry, f"{prefix}{entry.name}/")
            else:
                yield f"{prefix}{entry.name}"


def shipped(folder):
    tree = find_work_tree(folder, Path.read_bytes, Path.exists)
    return {path for path in walk(tree, folder) if not path.endswith(".gitignore")}


@pytest.mark.skipif(GIT is None, reason="git is not installed")
@settings(max_examples=60, deadline=None)
@given(IGNORE_FILES)
def test_what_is_ignored_is_what_git_ignores(ignore_files):
    with tempfile.TemporaryDirectory() as name:
        top = Path(name).resolve()
        git("init", "-q", cwd=top)
        (top / ".git" / "info").mkdir(exist_ok=True)
        for path in FILES:
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_text("")
        for path, lines in ignore_files.items():
            (top / path).write_text("\n".join(lines) + "\n", newline="")
        listed = git("ls-files", "-z", "--others", "--exclude-standard", cwd=top).split("\0")
        expected = {path for path in listed if path and not path.endswith(".gitignore")}
        assert shipped(top) == expected


def make_repository(top):
    (top / ".git" / "info").mkdir(parents=True)
    (top / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    return top


def test_ignore_files_above_the_folder_count_and_those_above_the_work_tree_do_not(tmp_path):
    (tmp_path / ".gitignore").write_text("*\n")
    top = make_repository(tmp_path / "top")
    (top / ".gitignore").write_text("*.log\nbuilt/\n")
    folder = top / "x" / "pack"
    folder.mkdir(parents=True)
    (folder / "a.log").write_text("")
    (folder / "a.py").write_text("")
    assert shipped(folder) == {"a.py"}
    tree = find_work_tree(folder, Path.read_bytes, Path.exists)
    assert tree.top == top
    assert tree.ignores_folder(top / "built" / "deep")
    assert not tree.ignores_folder(folder)
    assert not tree.ignores_folder(tmp_path / "elsewhere")
    assert not tree.ignores(tmp_path / "elsewhere.log", is_folder=False)


def test_outside_a_work_tree_nothing_is_known(tmp_path):
    assert find_work_tree(tmp_path, Path.read_bytes, lambda path: False) is None


@pytest.mark.skipif(GIT is None, reason="git is not installed")
def test_the_git_file_of_a_worktree_leads_to_the_exclude_file_of_its_repository(tmp_path):
    main = tmp_path / "main"
    main.mkdir()
    git("init", "-q", cwd=main)
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    git(*identity, "commit", "-q", "--allow-empty", "-m", "first", cwd=main)
    (main / ".git" / "info").mkdir(exist_ok=True)
    (main / ".git" / "info" / "exclude").write_text("secret.py\n")
    git("worktree", "add", "-q", str(tmp_path / "other"), cwd=main)
    other = tmp_path / "other"
    assert (other / ".git").is_file()
    (other / "secret.py").write_text("")
    (other / "app.py").write_text("")
    assert shipped(other) == {"app.py"}


def test_the_git_file_of_a_submodule_is_followed_and_a_broken_one_does_no_harm(tmp_path):
    top = make_repository(tmp_path / "top")
    sub = top / "sub"
    modules = top / ".git" / "modules" / "sub" / "info"
    modules.mkdir(parents=True)
    (modules / "exclude").write_text("x.py\n")
    sub.mkdir()
    (sub / "x.py").write_text("")
    (sub / "y.py").write_text("")
    (sub / ".gitignore").write_text("\ufeffy.py\n")
    (sub / ".git").write_text("gitdir: ../.git/modules/sub\n")
    assert shipped(sub) == set()
    (sub / ".git").write_text("gitdir: /no/such/folder\n")
    assert shipped(sub) == {"x.py"}


@pytest.mark.skipif(GIT is None, reason="git is not installed")
@pytest.mark.parametrize("version", ["2", "4"])
@pytest.mark.parametrize("names", ["sha1", "sha256"])
def test_what_git_tracks_is_not_ignored_whatever_patterns_say(tmp_path, version, names):
    top = tmp_path / "top"
    top.mkdir()
    git("init", "-q", f"--object-format={names}", cwd=top)
    forced = ["a.log", "built/deep/kept.py", "built/x", f"long/{'n' * 200}.log", "ümlaut.log"]
    for path in [*forced, "app.py", "b.log", "built/other.py", "built/deep/other.py", "free/x.py", "free/y.log"]:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text("")
    (top / ".gitignore").write_text("*.log\nbuilt/\n")
    git("-c", f"index.version={version}", "add", "-f", *forced, ".gitignore", cwd=top)
    # A flag that only longer entries have.
    git("add", "-N", "app.py", cwd=top)
    git("update-index", f"--index-version={version}", cwd=top)
    assert shipped(top) == {*forced, "app.py", "free/x.py"}
    assert sorted(tracked_files((top / ".git" / "index").read_bytes())) == sorted([*forced, ".gitignore", "app.py"])
    other = tmp_path / "other"
    git("-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-qm", "first", cwd=top)
    git("worktree", "add", "-q", str(other), cwd=top)
    (other / "b.log").write_text("")
    assert shipped(other) == {*forced}


@pytest.mark.parametrize(
    "data", [b"", b"DIRC", b"DIRC\0\0\0\x09\0\0\0\0", b"DIRC\0\0\0\2\xff\xff\xff\xff" + b"\0" * 200]
)
def test_an_index_that_cannot_be_read_tracks_nothing(data):
    assert tracked_files(data) == []


def test_every_file_that_could_be_there_is_asked_for(tmp_path):
    top = make_repository(tmp_path)
    folder = top / "a" / "b"
    folder.mkdir(parents=True)
    probed = set()

    def probe(path):
        probed.add(path)
        return path.exists()

    tree = find_work_tree(folder, Path.read_bytes, probe)
    tree.ignores(folder / "x.py", is_folder=False)
    assert {folder / ".git", folder.parent / ".git"} <= probed
    assert {each / ".gitignore" for each in (folder, folder.parent, top)} <= probed
    assert top / ".git" / "info" / "exclude" in probed
    # Their stamps change with every command of git, and would make every null build doubt itself.
    assert not {top / ".git", top / ".git" / "index"} & probed
    (top / ".gitignore").write_text("*.log\n")
    tree = find_work_tree(folder, Path.read_bytes, probe)
    assert tree.ignores(folder / "x.log", is_folder=False)
    assert top / ".git" / "index" in probed
