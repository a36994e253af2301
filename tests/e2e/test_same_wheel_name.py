"""Two layers beside each other that lock different bytes under one wheel file name."""

from __future__ import annotations

from conftest import WheelMaker
from runtimes import OWN
from space import Space

from strata_engine.digest import digest_file

STACK = f"""\
[[runtimes]]
name = "python"
python_implementation = "cpython@{OWN}"
requirements = []

[[applications]]
name = "a"
launch_module = "show.py"
runtime = "python"
requirements = ["twin", "same"]
package_indexes = {{ twin = "one", same = "one" }}

[[applications]]
name = "b"
launch_module = "show.py"
runtime = "python"
requirements = ["twin", "same"]
package_indexes = {{ twin = "two", same = "one" }}

[[tool.uv.index]]
name = "one"
url = "one"
format = "flat"
explicit = true

[[tool.uv.index]]
name = "two"
url = "two"
format = "flat"
explicit = true

[tool.strata.runtimes."python"]
provider = "local"
accept = "=={OWN}"
"""


def test_each_layer_has_its_own(empty: Space) -> None:
    wheels = {}
    for place in ("one", "two"):
        wheels[place] = WheelMaker(empty.root / place)("twin", {"twin.py": f"PLACE = {place!r}\n".encode()})
    WheelMaker(empty.root / "one")("same", {"same.py": b""})
    empty.write("venvstacks.toml", STACK)
    empty.write("show.py", "import twin\nprint(twin.PLACE)\n")
    first = empty.build()
    [file] = {path.name for path in wheels.values()}
    labels = {place: f"{file}~{digest_file(path).hash[:8]}" for place, path in wheels.items()}
    assert {label for label in first.keys if file in label} == {
        f"{kind}/{name}" for kind in ("fetch", "wheel") for name in labels.values()
    }
    assert "wheel/same-1.0-py3-none-any.whl" in first.keys
    assert empty.ok("run", "a").stdout == "one\n"
    assert empty.ok("run", "b").stdout == "two\n"
    # Whichever lock was there first: what history says of these labels holds for the next build.
    again = empty.build("app-b", "app-a")
    assert again.counts["up_to_date"] == len(again.keys) > 8
