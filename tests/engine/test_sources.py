from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import Bench

from strata_engine.digest import ABSENT, Digest, stamp
from strata_engine.errors import HostError, SpecError, StrataError
from strata_engine.sources import Sources
from strata_engine.tree import EMPTY_TREE, File, Symlink, Tree, entries
from strata_engine.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "w")
    made.prepare()
    return made


@pytest.fixture
def sources(workspace: Workspace) -> Sources:
    return Sources(workspace)


def ident(error: pytest.ExceptionInfo[StrataError]) -> str:
    return error.value.diagnostics[0].id


def test_everything_that_is_looked_at_is_recorded(workspace: Workspace, sources: Sources) -> None:
    root = workspace.root
    (root / "lib").mkdir()
    (root / "lib" / "b").write_text("b")
    (root / "lib" / "a").write_text("a")
    assert sources.read("lib/a") == b"a"
    assert not sources.probe("absent")
    assert sources.listing("lib") == ["a", "b"]
    assert sources.listing("none") == []
    assert sources.digest(root / "lib" / "b") == Digest.of(b"b")
    assert sources.observed == {
        str(root / "lib" / "a"): stamp(root / "lib" / "a"),
        str(root / "lib" / "b"): stamp(root / "lib" / "b"),
        str(root / "lib"): stamp(root / "lib"),
        str(root / "absent"): ABSENT,
        str(root / "none"): ABSENT,
    }
    assert sources.holds()


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "a").write_text("2"),
        lambda root: (root / "a").unlink(),
        lambda root: (root / "absent").touch(),
        lambda root: (root / "lib" / "new").touch(),
        lambda root: (root / "absent").symlink_to(root / "absent"),
    ],
)
def test_what_changes_after_the_look_does_not_hold(workspace: Workspace, sources: Sources, change: object) -> None:
    (workspace.root / "a").write_text("1")
    (workspace.root / "lib").mkdir()
    sources.read("a")
    sources.probe("absent")
    sources.listing("lib")
    change(workspace.root)  # type: ignore[operator] # each is a function of a folder
    assert not sources.holds()


@pytest.mark.parametrize("look", ["read", "digest", "listing"])
def test_an_edit_within_the_clocks_grain_is_noticed(workspace: Workspace, look: str) -> None:
    for number in range(8):
        folder = workspace.root / f"d{number}"
        folder.mkdir()
        path = folder / "f"
        path.write_text("one")
        sources = Sources(workspace)
        getattr(sources, look)(path if look != "listing" else folder)
        # Of the same size, at once, with the old time.
        before = path.stat().st_mtime_ns
        path.write_text("two")
        os.utime(path, ns=(before, before))
        if look == "listing":
            (folder / "f").rename(folder / "g")
        assert not sources.holds(), number


def test_what_never_stands_still_never_holds(
    workspace: Workspace, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strata_engine.sources.racy", lambda value, now: value != ABSENT)
    monkeypatch.setattr("strata_engine.sources._PAUSE", 0)
    (workspace.root / "log").write_text("1")
    assert sources.read("log") == b"1"
    assert not sources.holds()


def test_a_file_that_changes_while_it_is_hashed_is_refused(
    workspace: Workspace, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workspace.root / "f"
    path.write_text("0")

    def hash_and_change(place: Path) -> Digest:
        path.write_text(path.read_text() + "x")
        return Digest.of(b"half of each")

    monkeypatch.setattr("strata_engine.sources.digest_file", hash_and_change)
    monkeypatch.setattr("strata_engine.sources.racy", lambda value, now: False)
    with pytest.raises(HostError) as error:
        sources.digest("f")
    assert ident(error) == "racy-input"


def test_a_file_that_changed_since_it_was_read_is_two_contents(workspace: Workspace, sources: Sources) -> None:
    (workspace.root / "f").write_text("read in analysis")
    sources.read("f")
    (workspace.root / "f").write_text("hashed in execution")
    assert sources.digest("f") == Digest.of(b"hashed in execution")
    # The answer came from both, so no snapshot may be made of it.
    assert not sources.holds()


def test_known_digests_survive_and_are_not_fooled(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    root = workspace.root
    names = ("same", "edited", "touched", "not\udcfftext")
    for name in names:
        (root / name).write_text("one")

    def digests(number_hashed: int) -> dict[str, Digest]:
        hashed: list[Path] = []
        sources = Sources(workspace)
        real = sources._hash
        monkeypatch.setattr(sources, "_hash", lambda place: hashed.append(place) or real(place))
        found = {name: sources.digest(name) for name in names}
        sources.save()
        assert len(hashed) == number_hashed
        return found

    first = digests(4)
    assert digests(0) == first
    before = (root / "edited").stat()
    (root / "edited").write_text("two")
    os.utime(root / "edited", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(root / "touched")
    assert digests(2) == first | {"edited": Digest.of(b"two")}
    # Damage costs hashing, nothing else.
    state = workspace.state / "sources"
    for damage in (b"", b"x" * 100, state.read_bytes()[:-1], bytes(16) + state.read_bytes()[16:]):
        state.write_bytes(damage)
        digests(4)


def test_files_and_their_executable_bit(workspace: Workspace, sources: Sources) -> None:
    root = workspace.root
    (root / "tool").write_text("#!")
    (root / "tool").chmod(0o744)
    (root / "odd").write_text("#!")
    (root / "odd").chmod(0o655)
    # The owner's bit, whoever builds.
    assert sources.file("tool") == File(Digest.of(b"#!"), executable=True)
    assert sources.file("odd") == File(Digest.of(b"#!"))


def test_trees_are_captured_as_they_stand(workspace: Workspace, sources: Sources, bench: Bench) -> None:
    root = workspace.root
    (root / "lib" / "pkg").mkdir(parents=True)
    (root / "lib" / "pkg" / "m.py").write_text("m")
    (root / "lib" / "skip.pyc").write_text("no")
    (root / "lib" / "cache").mkdir()
    (root / "lib" / "cache" / "x").write_text("no")
    (root / "lib" / "link").symlink_to("pkg/m.py")
    (root / "lib" / "dangling").symlink_to("nowhere")
    asked: list[tuple[str, bool]] = []

    def accept(path: str, is_folder: bool) -> bool:
        asked.append((path, is_folder))
        return path != "cache" and not path.endswith(".pyc")

    tree = sources.tree(bench.store, "lib", accept)
    assert dict(entries(bench.store, tree)) == {
        "dangling": Symlink("nowhere"),
        "link": Symlink("pkg/m.py"),
        "pkg": Tree(next(node.root for _, node in entries(bench.store, tree) if isinstance(node, Tree))),
        "pkg/m.py": File(Digest.of(b"m")),
    }
    assert set(asked) == {
        ("cache", True), ("skip.pyc", False), ("pkg", True), ("pkg/m.py", False), ("link", False), ("dangling", False),
    }  # fmt: skip
    # Folders that were not taken were not looked into either.
    assert str(root / "lib" / "cache") not in sources.observed
    (root / "lib" / "pkg" / "new.py").touch()
    assert not sources.holds()


def test_symlinks_are_followed_where_that_is_asked(workspace: Workspace, sources: Sources, bench: Bench) -> None:
    root = workspace.root
    (root / "shared" / "deep").mkdir(parents=True)
    (root / "shared" / "m.py").write_text("m")
    (root / "shared" / "deep" / "d.py").write_text("d")
    (root / "lib").mkdir()
    (root / "lib" / "m.py").symlink_to("../shared/m.py")
    (root / "lib" / "both").symlink_to(root / "shared")
    (root / "lib" / "again").symlink_to("both/deep")
    asked: list[tuple[str, bool]] = []

    def accept(path: str, is_folder: bool) -> bool:
        asked.append((path, is_folder))
        return path != "both/m.py"

    tree = sources.tree(bench.store, "lib", accept, follow=True)
    m, d = File(Digest.of(b"m")), File(Digest.of(b"d"))
    files = {path: node for path, node in entries(bench.store, tree) if not isinstance(node, Tree)}
    assert files == {"m.py": m, "again/d.py": d, "both/deep/d.py": d}
    assert {("both", True), ("m.py", False), ("again", True)} <= set(asked)
    (root / "shared" / "deep" / "new.py").touch()
    assert not sources.holds()


def test_folders_of_which_nothing_is_taken_are_kept_where_that_is_asked(
    workspace: Workspace, sources: Sources, bench: Bench
) -> None:
    root = workspace.root
    for path in ("lib/void/inner", "lib/left", "lib/full", "lib/refused"):
        (root / path).mkdir(parents=True)
    (root / "lib/left/.note").touch()
    (root / "lib/full/a").touch()

    def accept(path: str, is_folder: bool) -> bool:
        return not path.endswith((".note", "refused"))

    def folders(**more: Any) -> dict[str, Tree]:
        found = entries(bench.store, sources.tree(bench.store, "lib", accept, **more))
        return {path: node for path, node in found if isinstance(node, Tree)}

    assert folders().keys() == {"full"}
    kept = folders(empty=lambda path: path != "left")
    assert kept.keys() == {"full", "void", "void/inner"}
    assert kept["void/inner"] == EMPTY_TREE
    assert folders(empty=lambda path: True).keys() == {"full", "left", "void", "void/inner"}
    (root / "lib/void/inner/new").touch()
    assert not sources.holds()


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("gone", "which is no file or folder"),
        ("loop", "which is no file or folder"),
        (".", "a folder that it is in itself"),
        ("..", "a folder that it is in itself"),
    ],
)
def test_a_symlink_that_leads_nowhere_is_refused_where_it_would_be_followed(
    workspace: Workspace, sources: Sources, bench: Bench, target: str, what: str
) -> None:
    (workspace.root / "lib" / "sub").mkdir(parents=True)
    (workspace.root / "lib" / "sub" / "loop").symlink_to(target)
    assert sources.tree(bench.store, "lib")
    with pytest.raises(SpecError, match=f"the symlink `lib/sub/loop` leads to `{target}`, {what}") as error:
        sources.tree(bench.store, "lib", follow=True)
    assert ident(error) == "broken-symlink"


@pytest.mark.parametrize(
    ("use", "kind", "id"),
    [
        (lambda s, root, store: s.read("none"), SpecError, "missing-file"),
        (lambda s, root, store: s.digest("none"), SpecError, "missing-file"),
        (lambda s, root, store: s.file("none"), SpecError, "missing-file"),
        (lambda s, root, store: s.tree(store, "none"), SpecError, "missing-file"),
        (lambda s, root, store: s.read("folder"), HostError, "unreadable"),
        (lambda s, root, store: s.digest("folder"), SpecError, "not-a-file"),
        (lambda s, root, store: s.digest("pipe"), SpecError, "not-a-file"),
        (lambda s, root, store: s.listing("file"), HostError, "unreadable"),
        (lambda s, root, store: s.probe("loop"), HostError, "unreadable"),
        (lambda s, root, store: s.tree(store, "names"), SpecError, "name-not-utf8"),
    ],
)
def test_what_cannot_be_read_is_a_diagnostic(
    workspace: Workspace, sources: Sources, bench: Bench, use: object, kind: type[StrataError], id: str
) -> None:
    root = workspace.root
    (root / "folder").mkdir()
    (root / "file").touch()
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    (root / "names").mkdir()
    (root / "names" / "caf\udce9").touch()
    with pytest.raises(kind) as error:
        use(sources, root, bench.store)  # type: ignore[operator] # each is a function of these
    assert ident(error) == id


def test_healing_puts_a_source_back_unless_it_has_changed(workspace: Workspace, sources: Sources, bench: Bench) -> None:
    path = workspace.root / "f"
    path.write_text("one")
    digest = sources.digest("f")
    assert not bench.store.has(digest)
    assert sources.heal(bench.store, digest)
    assert bench.store.get(digest) == b"one"
    assert not sources.heal(bench.store, Digest.of(b"never seen"))
    path.write_text("two")
    with pytest.raises(HostError) as error:
        sources.heal(bench.store, digest)
    assert ident(error) == "racy-input"
    assert "`f`" in error.value.diagnostics[0].message
    path.unlink()
    with pytest.raises(HostError) as error:
        sources.heal(bench.store, digest)
    assert ident(error) == "racy-input"


def test_threads_may_share_it(workspace: Workspace, sources: Sources) -> None:
    for number in range(20):
        (workspace.root / str(number)).write_text(str(number))
    found: list[list[Digest]] = []
    threads = [
        threading.Thread(target=lambda: found.append([sources.digest(str(n)) for n in range(20)])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[Digest.of(str(n).encode()) for n in range(20)]] * 4
