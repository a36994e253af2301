"""The examples do what they say: each is copied, run as its reader would run it, and looked at."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from space import Space

from strata_engine.digest import digest_file

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
IGNORED = shutil.ignore_patterns("_build", "_artifacts", ".strata", "requirements", "__pycache__")
"""What git ignores there: a copy is as fresh as a clone."""


class Said(NamedTuple):
    """What the own rule's build said: labels, each with the codes of its reasons."""

    executed: dict[str, list[str]]
    last: str


@pytest.fixture
def poems(tmp_path: Path) -> Path:
    shutil.copytree(EXAMPLES / "own-rule", tmp_path / "own-rule", ignore=IGNORED)
    return tmp_path / "own-rule"


def run_site(folder: Path) -> Said:
    done = subprocess.run(
        [sys.executable, "site.py"],
        cwd=folder,
        env={**os.environ, "STRATA_CACHE_DIR": str(folder.parent / "store")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    executed: dict[str, list[str]] = {}
    for line in done.stderr.splitlines():
        if headline := re.match(r"\[\d+/\d+\] executed (\S+)", line):
            executed[headline[1]] = []
        elif reason := re.match(r" {4}([a-z-]+)\b", line):
            executed[list(executed)[-1]].append(reason[1])
    return Said(executed, done.stderr.splitlines()[-1])


def test_an_own_rule_is_built_cached_and_explained(poems: Path) -> None:
    first = run_site(poems)
    assert first.executed == {label: ["first-build"] for label in ("night-train/render", "rain/render", "site/bind")}
    pages = {path.name: path.read_text() for path in (poems / "_build" / "site").iterdir()}
    assert set(pages) == {"index.html", "Night train.html", "Rain.html"}
    assert "the pane keeps neither." in pages["Rain.html"]
    second = run_site(poems)
    assert second.executed == {}
    assert second.last.startswith("3 actions: 3 up to date")


def test_an_edited_poem_is_rendered_and_bound_and_a_space_is_rendered_only(poems: Path) -> None:
    run_site(poems)
    poem, page = poems / "poems" / "rain.txt", poems / "_build" / "site" / "Rain.html"
    poem.write_text(poem.read_text() + "It stops.\n")
    edited = run_site(poems)
    assert edited.executed == {"rain/render": ["input-changed"], "site/bind": ["upstream-changed"]}
    assert "It stops." in page.read_text()
    before = page.stat()
    poem.write_text(poem.read_text().replace("It stops.\n", "It stops. \n"))
    assert run_site(poems).executed == {"rain/render": ["input-changed"]}
    assert page.stat() == before, "an output that is what it was is left alone"
    (poems / "poems" / "snow.txt").write_text("Snow.\n")
    assert run_site(poems).executed == {"snow/render": ["first-build"], "site/bind": ["input-added"]}


def test_quickstart(tmp_path: Path) -> None:
    """Build, run and publish the quickstart; this asks the package index."""
    shutil.copytree(EXAMPLES / "quickstart", tmp_path / "quickstart", ignore=IGNORED)
    space = Space(tmp_path / "quickstart", tmp_path / "store")
    layers = ("python", "framework-numeric", "framework-drawing", "app-mandelbrot", "app-terrain")
    first = space.build()
    wheels = {label.partition("/")[2] for label in first.keys if label.startswith("wheel/")}
    assert {file.partition("-")[0] for file in wheels} >= {"numpy", "contourpy", "rich", "pygments"}
    expected = {f"{layer}/{part}" for layer in layers for part in ("lock", "install", "link")}
    expected |= {f"{kind}/{file}" for kind in ("fetch", "wheel") for file in wheels}
    # The runtime is captured from this machine, or downloaded and unpacked.
    runtime = {label for label in first.keys if label.startswith("python/")} - expected
    assert runtime in ({"python/capture"}, {"python/download", "python/unpack"})
    assert set(first.keys) == expected | runtime
    # The applications require nothing more, so that what installs nothing in both is one action under two labels.
    assert {first.keys[label] for label in first.executed} == set(first.keys.values())
    assert set(first.keys) - first.executed <= {"app-mandelbrot/install", "app-terrain/install"}

    picture = space.ok("run", "mandelbrot", env={"COLUMNS": "60", "LINES": "20"}).stdout.splitlines()
    assert len(picture) > 10
    assert max(map(len, picture[:10])) >= 50
    assert re.search(r"numpy \d+\.\d+\.\d+ on Python 3\.\d+\.\d+", picture[-1])
    map_ = space.ok("run", "terrain", env={"COLUMNS": "60", "LINES": "20"}).stdout.splitlines()
    assert len(map_) > 10
    assert map_ != picture

    again = space.build()
    assert again.executed == set()
    assert again.counts["up_to_date"] == len(again.keys) == len(first.keys)

    # The default, xz, is as good and takes a minute.
    published = space.publish("--format", "tar.zst")
    assert published.executed == {f"{layer}/archive[tar.zst]" for layer in layers}
    artifacts = space.root / "_artifacts"
    manifest = json.loads((artifacts / "__venvstacks__" / "venvstacks.json").read_text())
    entries = [entry for kind in manifest["layers"].values() for entry in kind]
    assert {entry["layer_name"] for entry in entries} == set(layers)
    for entry in entries:
        digest = digest_file(artifacts / entry["archive_name"])
        assert (entry["archive_hashes"], entry["archive_size"]) == ({"sha256": digest.hash}, digest.size)
    assert space.publish("--format", "tar.zst").executed == set()
