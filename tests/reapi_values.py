"""Whatever our codec can encode, for Hypothesis: Directories, Commands, Actions and results of actions."""

from __future__ import annotations

from hypothesis import strategies as st

from strata_engine.codec import (
    Action,
    ActionResult,
    Attached,
    Command,
    Directory,
    DirectoryNode,
    FileNode,
    OutputDirectory,
    OutputFile,
    Signature,
    SymlinkNode,
)
from strata_engine.digest import Digest

SIZES = st.one_of(st.sampled_from([0, 1, 127, 128, 16383, 16384, 2**31, 2**63 - 1]), st.integers(0, 2**63 - 1))
DIGESTS = st.builds(lambda data, size: Digest(Digest.of(data).hash, size), st.binary(max_size=2), SIZES)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=8)
NAMES = st.one_of(TEXTS, st.sampled_from(["￿", "\U0001f40d", "a" * 200])).filter(lambda text: text not in {".", ".."})
PAIRS = st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=4).map(
    lambda pairs: tuple(sorted(pairs.items()))
)
TIMES = st.one_of(st.just(0), st.integers(-(2**62), 2**62), st.integers(0, 4).map(lambda seconds: seconds * 10**9))


@st.composite
def directories(draw: st.DrawFn) -> Directory:
    names = draw(st.lists(NAMES, unique=True, max_size=8))
    files, folders, links = [], [], []
    for name in sorted(names):
        match draw(st.integers(0, 2)):
            case 0:
                files.append(FileNode(name, draw(DIGESTS), draw(st.booleans())))
            case 1:
                folders.append(DirectoryNode(name, draw(DIGESTS)))
            case _:
                links.append(SymlinkNode(name, draw(TEXTS)))
    return Directory(tuple(files), tuple(folders), tuple(links))


COMMANDS = st.builds(
    Command,
    st.lists(st.text(max_size=6)).map(tuple),
    PAIRS,
    st.sets(st.text(max_size=3), max_size=3).map(lambda paths: tuple(sorted(paths))),
)
ACTIONS = st.builds(Action, DIGESTS, DIGESTS, st.binary(max_size=5), PAIRS)
RESULTS = st.builds(
    ActionResult,
    st.dictionaries(NAMES, st.tuples(DIGESTS, st.booleans(), st.binary(max_size=3)), max_size=3).map(
        lambda files: tuple(OutputFile(path, *files[path]) for path in sorted(files))
    ),
    st.dictionaries(
        NAMES,
        st.tuples(st.none() | DIGESTS, st.none() | DIGESTS, st.booleans()).filter(lambda folder: any(folder[:2])),
        max_size=3,
    ).map(lambda folders: tuple(OutputDirectory(path, *folders[path]) for path in sorted(folders))),
    st.integers(-(2**31), 2**31 - 1),
    st.binary(max_size=200),
    st.binary(max_size=5),
    st.text(max_size=4),
    TIMES,
    TIMES,
    st.none() | DIGESTS,
    st.none() | DIGESTS,
    st.dictionaries(NAMES, TEXTS, max_size=2).map(
        lambda links: tuple(SymlinkNode(path, links[path]) for path in sorted(links))
    ),
    st.lists(st.builds(Attached, st.text(max_size=4), st.binary(max_size=3)), max_size=2).map(tuple),
)
SIGNATURES = st.builds(
    Signature, st.text(max_size=4), st.integers(0, 2**63 - 1), st.binary(max_size=3), st.binary(max_size=3)
)
