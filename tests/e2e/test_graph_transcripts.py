"""What `graph why` says in the twenty most usual situations: whole transcripts, as a person reads them.

Only what differs from run to run is replaced: names of builds, how long ago they were, durations, and digests; and as
the most expensive cause comes first, causes are put into the order of their text.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3

import pytest
from runtimes import OWN, interpreters
from space import STACK, Space

MINOR = OWN.rpartition(".")[0]
OTHERS = [found for found in interpreters() if found.python != MINOR]


def normal(text: str) -> str:
    """Replace what no two runs have in common."""
    text = re.sub(r"\brun [0-9a-f]{6}\b", "run RUN", text)
    text = re.sub(r"^[0-9a-f]{6}  ", "RUN  ", text, flags=re.MULTILINE)
    text = re.sub(r"\b\d+ (?:s|min) ago *", lambda match: "AGO" + " " * match[0].endswith(" "), text)
    text = re.sub(r" *\b\d+\.\d s\b", " SECONDS", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "DIGEST-12-HEX", text)
    text = re.sub(r"\b[0-9a-f]{8}\b", "DIGEST", text)
    blocks = text.strip().split("\n\n")
    causes = [number for number, block in enumerate(blocks) if block.startswith("because")]
    for number, block in zip(causes, sorted(blocks[number] for number in causes), strict=True):
        blocks[number] = block
    text = "\n\n".join(blocks) + "\n\n"
    for other in OTHERS[:1]:
        text = text.replace(other.version, "A.B.C").replace(other.python, "A.B")
    return text.replace(OWN, "X.Y.Z").replace(MINOR, "X.Y")


class Session:
    """Commands and what they answered, as a terminal shows them."""

    def __init__(self) -> None:
        self.text = ""

    def ask(self, space: Space, *arguments: str, code: int = 0) -> None:
        """Ask something of a workspace."""
        ran = space.strata("graph", *arguments)
        assert ran.code == code
        words = [re.sub(r"^\d{8}T\d{6}-[0-9a-f]{6}$", "RUN", argument) for argument in arguments]
        self.text += normal(f"$ strata graph {' '.join(words)}\n{ran.stdout}{ran.stderr}")


THE_FIRST_BUILD = """\
$ strata graph why --run RUN
run RUN, publish, AGO: 29 executed of 29 actions in SECONDS

because  first-build app-hello/lock
         4 actions, SECONDS, from app-hello/lock

because  first-build python/capture
         12 actions, SECONDS, from python/capture

because  first-build python/lock
         27 actions, SECONDS, from python/lock

$ strata graph why app-world --run RUN
app-world/archive[tar.gz]  executed in SECONDS  (run RUN, AGO)

because  first-build python/capture
         12 actions, SECONDS
way      python/capture             (none) → DIGEST
         python/install             (none) → DIGEST
         python/link                (none) → DIGEST
         app-world/link             (none) → DIGEST
         app-world/archive[tar.gz]  (none) → DIGEST

because  first-build python/lock
         27 actions, SECONDS
way      python/lock                (none) → DIGEST
         app-world/install          (none) → DIGEST
         app-world/link             (none) → DIGEST
         app-world/archive[tar.gz]  (none) → DIGEST

"""


def test_the_first_build(template: Space) -> None:
    session = Session()
    first = template.ok("graph", "runs", "--json").json["runs"][-1]["run"]
    session.ask(template, "why", "--run", first)
    session.ask(template, "why", "app-world", "--run", first)
    assert session.text == THE_FIRST_BUILD


THE_FIRST_BUILD_OF_A_CHECKOUT_WITH_A_STORE_THAT_KNOWS_IT = """\
$ strata graph why
run RUN, build, AGO: 19 cached of 24 actions in SECONDS

because  first-build (5): app-hello/install, app-world/install and 3 more
         nothing ran for it: the store had it
more     --full shows all of it

$ strata graph why app-hello
app-hello/link  cached, not executed  (run RUN, AGO)

because  first-build (4): app-hello/install, framework-low/install and 2 more
         nothing ran for it: the store had it
way      app-hello/install  (none) → DIGEST
         app-hello/link     (none) → DIGEST
more     --full shows all of it

"""


def test_the_first_build_of_a_checkout_with_a_store_that_knows_it(built: Space) -> None:
    session = Session()
    session.ask(built, "why")
    session.ask(built, "why", "app-hello")
    assert session.text == THE_FIRST_BUILD_OF_A_CHECKOUT_WITH_A_STORE_THAT_KNOWS_IT


MODULES = """\
$ strata graph why app-hello
app-hello/link  executed in SECONDS  (run RUN, AGO)

because  input-changed hello.py: DIGEST-12-HEX → DIGEST-12-HEX
           +1 -0 lines, from line 3 on
           + print('more')
         1 action, SECONDS

$ strata graph why
run RUN, build, AGO: 1 executed of 24 actions in SECONDS
2 builds since had nothing to do

because  input-changed hello.py: DIGEST-12-HEX → DIGEST-12-HEX
           +1 -0 lines, from line 3 on
           + print('more')
         1 action, SECONDS, from app-hello/link

$ strata graph why app-hello
app-hello/link  cached, not executed  (run RUN, AGO)

because  input-changed hello.py: DIGEST-12-HEX → DIGEST-12-HEX
           +0 -1 lines, from line 3 on
           - print('more')
         nothing ran for it: the store had it

$ strata graph why app-hello
app-hello/link  executed in SECONDS  (run RUN, AGO)

because  input-added more.py: (none) → DIGEST-12-HEX
           +1 line
         1 action, SECONDS

because  input-removed extra.py: DIGEST-12-HEX → (none)
           -1 line
         1 action, SECONDS

"""


def test_modules(built: Space) -> None:
    session = Session()
    before = built.read("hello.py")
    built.write("hello.py", before + "print('more')\n")
    built.ok("build")
    # One module was edited.
    session.ask(built, "why", "app-hello")
    # And nothing since.
    built.ok("build")
    built.ok("build")
    session.ask(built, "why")
    # The edit was taken back: the store still has what came of it.
    built.write("hello.py", before)
    built.ok("build")
    session.ask(built, "why", "app-hello")
    # A support module got another name.
    built.write("extra.py", "EXTRA = 1\n")
    built.replace("venvstacks.toml", '"hello.py"\n', '"hello.py"\nsupport_modules = ["extra.py"]\n')
    built.ok("build")
    (built.root / "extra.py").rename(built.root / "more.py")
    built.replace("venvstacks.toml", '"extra.py"', '"more.py"')
    built.ok("build")
    session.ask(built, "why", "app-hello")
    assert session.text == MODULES


REQUIREMENTS = """\
$ strata graph why framework-low
framework-low/link  executed in SECONDS  (run RUN, AGO)

because  parameter-changed venvstacks.toml#frameworks.low.requirements
           alpha → alpha==0.9
           venvstacks.toml:9  alpha → alpha==0.9
           alpha 1.0 → 0.9
         7 actions, SECONDS
way      framework-low/lock                DIGEST → DIGEST
         wheel/alpha-0.9-py3-none-any.whl  (none) → DIGEST
         framework-low/install             DIGEST → DIGEST
         framework-low/link                DIGEST → DIGEST

cutoff   app-world/lock, framework-low/link
         what is taken of them is as before: 6 actions had nothing to do

$ strata graph why app-world
app-world/lock  executed in SECONDS  (run RUN, AGO)

because  parameter-changed venvstacks.toml#frameworks.low.requirements
           alpha → alpha==0.9
           venvstacks.toml:9  alpha → alpha==0.9
           alpha 1.0 → 0.9
         7 actions, SECONDS
way      framework-low/lock  DIGEST → DIGEST
         app-world/lock      DIGEST as before

cutoff   app-world/lock, framework-low/link
         what is taken of them is as before: 6 actions had nothing to do

$ strata graph why alpha
wheel/alpha-0.9-py3-none-any.whl  executed in SECONDS  (run RUN, AGO)

because  parameter-changed venvstacks.toml#frameworks.low.requirements
           alpha → alpha==0.9
           venvstacks.toml:9  alpha → alpha==0.9
           alpha 1.0 → 0.9
         7 actions, SECONDS
way      framework-low/lock                DIGEST → DIGEST
         wheel/alpha-0.9-py3-none-any.whl  (none) → DIGEST

cutoff   app-world/lock, framework-low/link
         what is taken of them is as before: 6 actions had nothing to do

$ strata graph why
run RUN, build, AGO: 1 executed of 24 actions in SECONDS

because  parameter-changed venvstacks.toml#frameworks.low.requirements
           alpha==0.9 → alpha<1
           venvstacks.toml:9  alpha==0.9 → alpha<1
         1 action, SECONDS, from framework-low/lock

cutoff   framework-low/lock
         what is taken of it is as before: 18 actions had nothing to do

$ strata graph why app-world
app-world/link  executed in SECONDS  (run RUN, AGO)

because  parameter-changed venvstacks.toml#applications.world.requirements
           (none) → epsilon
           venvstacks.toml:26  + epsilon
           + epsilon 1.0
         5 actions, SECONDS
way      app-world/lock     DIGEST → DIGEST
         app-world/install  DIGEST → DIGEST
         app-world/link     DIGEST → DIGEST

$ strata graph why app-world
app-world/link  executed in SECONDS  (run RUN, AGO)

because  parameter-changed venvstacks.toml#applications.world.requirements
           zeta → (none)
           venvstacks.toml:26  - zeta
           - zeta 1.0
         3 actions, SECONDS
way      app-world/lock     DIGEST → DIGEST
         app-world/install  DIGEST → DIGEST
         app-world/link     DIGEST → DIGEST

"""


def test_requirements(built: Space) -> None:
    session = Session()
    built.replace("venvstacks.toml", '["alpha", "beta"]', '["alpha==0.9", "beta"]')
    built.ok("build")
    # A requirement was changed: asked of the layer, of one above, and of a wheel.
    session.ask(built, "why", "framework-low")
    session.ask(built, "why", "app-world")
    session.ask(built, "why", "alpha")
    # The same versions are required in other words: the lock is made again, and nothing above it.
    built.replace("venvstacks.toml", '"alpha==0.9"', '"alpha<1"')
    built.ok("build")
    session.ask(built, "why")
    # One was added, and another one removed.
    built.replace("venvstacks.toml", '["zeta"]', '["epsilon", "zeta"]')
    built.ok("build")
    session.ask(built, "why", "app-world")
    built.replace("venvstacks.toml", '["epsilon", "zeta"]', '["epsilon"]')
    built.ok("build")
    session.ask(built, "why", "app-world")
    assert session.text == REQUIREMENTS


SETTINGS_OF_LOCKS = """\
$ strata graph why framework-low
framework-low/lock  executed in SECONDS  (run RUN, AGO)

because  parameter-changed venvstacks.toml#tool.uv.prerelease: (none) → allow
           venvstacks.toml:30  [tool.uv] prerelease  + allow
         3 actions, SECONDS

cutoff   app-world/lock, framework-low/lock, framework-up/lock
         what is taken of them is as before: 16 actions had nothing to do

$ strata graph why
run RUN, build, AGO: 3 executed of 24 actions in SECONDS

because  parameter-changed venvstacks.toml#tool.uv.exclude-newer
           (none) → 2030-01-01T00:00:00Z
           venvstacks.toml:30  [tool.uv] exclude-newer  + 2030-01-01T00:00:00Z
         3 actions, SECONDS, from app-world/lock, framework-low/lock and 1 more

cutoff   app-world/lock, framework-low/lock, framework-up/lock
         what is taken of them is as before: 16 actions had nothing to do
more     --full shows all of it

"""


def test_settings_of_locks(built: Space) -> None:
    session = Session()
    built.replace("venvstacks.toml", "no-index = true\n", 'no-index = true\nprerelease = "allow"\n')
    built.ok("build")
    # A setting of uv was changed.
    session.ask(built, "why", "framework-low")
    built.replace("venvstacks.toml", "no-index = true\n", 'no-index = true\nexclude-newer = "2030-01-01T00:00:00Z"\n')
    built.ok("build")
    # The time up to which releases count.
    session.ask(built, "why")
    assert session.text == SETTINGS_OF_LOCKS


A_NEWER_VERSION_IS_TAKEN_WHEN_THAT_IS_ASKED_FOR = """\
$ strata graph why
run RUN, build, AGO: 3 executed of 24 actions in SECONDS

because  input-added wheels/alpha-1.1-py3-none-any.whl: (none) → DIGEST-12-HEX
           (none) → 810 B
         3 actions, SECONDS, from app-world/lock, framework-low/lock and 1 more

cutoff   app-world/lock, framework-low/lock, framework-up/lock
         what is taken of them is as before: 16 actions had nothing to do
more     --full shows all of it

$ strata graph why
run RUN, lock, AGO: 4 executed of 5 actions in SECONDS

because  forced (4): app-hello/lock, app-world/lock and 2 more
         4 actions, SECONDS, from app-hello/lock, app-world/lock and 2 more

cutoff   app-world/lock
         what is taken of it is as before
more     --full shows all of it

$ strata graph why framework-low
framework-low/link  executed in SECONDS  (run RUN, AGO)

because  forced framework-low/lock
         4 actions, SECONDS
way      framework-low/lock                DIGEST → DIGEST  (run RUN)
         wheel/alpha-1.1-py3-none-any.whl  (none) → DIGEST
         framework-low/install             DIGEST → DIGEST
         framework-low/link                DIGEST → DIGEST

cutoff   framework-low/link
         what is taken of it is as before: 3 actions had nothing to do

"""


def test_a_newer_version_is_taken_when_that_is_asked_for(built: Space) -> None:
    session = Session()
    built.wheel("alpha", version="1.1")
    built.ok("build")
    # There is a newer version, and the lock keeps the one that it has.
    session.ask(built, "why")
    built.ok("lock", "--upgrade", "--include", "framework-low")
    session.ask(built, "why")
    built.ok("build")
    session.ask(built, "why", "framework-low")
    assert session.text == A_NEWER_VERSION_IS_TAKEN_WHEN_THAT_IS_ASKED_FOR


DEFINITIONS = """\
$ strata graph why framework-low --dry
framework-low/link  may run, as far as can be known  (if it were built now)

because  parameter-changed venvstacks.toml#frameworks.low.platforms
           (none) → linux_aarch64
           venvstacks.toml:8  [frameworks.low] platforms  + linux_aarch64
         3 actions
way      framework-low/lock     DIGEST → (not known yet)
         framework-low/install  DIGEST → (not known yet)
         framework-low/link     DIGEST → (not known yet)

$ strata graph why app-hallo
app-hallo/link  executed in SECONDS  (run RUN, AGO)

because  first-build app-hallo/lock
         2 actions, SECONDS
way      app-hallo/lock     (none) → DIGEST
         app-hallo/install  (none) → DIGEST
         app-hallo/link     (none) → DIGEST

$ strata graph why
run RUN, build, AGO: 3 executed of 24 actions in SECONDS

because  input-changed hello.py: DIGEST-12-HEX → DIGEST-12-HEX
           +1 -2 lines, from line 1 on
           - import alpha, gamma
           - print('hello', alpha.NAME, gamma.NAME)
           + import alpha
         1 action, SECONDS, from app-hallo/link

because  input-changed world/names.py: DIGEST-12-HEX → DIGEST-12-HEX
           +1 -1 lines, from line 1 on
           - NAME = 'wide'
           + NAME = 'narrow'
         1 action, SECONDS, from app-world/link

because  parameter-changed venvstacks.toml#frameworks.up.requirements
           (none) → beta
           venvstacks.toml:14  + beta
         1 action, SECONDS, from framework-up/lock

cutoff   framework-up/lock
         what is taken of it is as before: 9 actions had nothing to do

$ strata graph runs
RUN  AGO build    3 of 24 SECONDS  2 input-changed, parameter-chan…
RUN  AGO build    4 of 24 SECONDS  first-build app-hallo/lock, out…
RUN  AGO build    1 of 2 SECONDS  5 parameter-changed
RUN  AGO build    19 of 24 SECONDS  5 first-build
more     --full shows all of it

$ strata graph diff last~1 last
3 actions with another key  (run RUN → run RUN)

because  input-changed hello.py: DIGEST-12-HEX → DIGEST-12-HEX
           +1 -2 lines, from line 1 on
           - import alpha, gamma
           - print('hello', alpha.NAME, gamma.NAME)
           + import alpha
         1 action, from app-hallo/link

because  input-changed world/names.py: DIGEST-12-HEX → DIGEST-12-HEX
           +1 -1 lines, from line 1 on
           - NAME = 'wide'
           + NAME = 'narrow'
         1 action, from app-world/link

because  parameter-changed venvstacks.toml#frameworks.up.requirements
           (none) → beta
           venvstacks.toml:14  + beta
         1 action, from framework-up/lock

changed  app-hallo/link, app-world/link, framework-up/lock
same     21 actions with equal keys

"""


def test_definitions(built: Space) -> None:
    session = Session()
    few, more = ('platforms = ["linux_x86_64"]\n', 'platforms = ["linux_x86_64", "linux_aarch64"]\n')
    built.replace("venvstacks.toml", 'name = "low"\n', f'name = "low"\n{few}')
    built.ok("build", "framework-low/lock")
    built.replace("venvstacks.toml", few, more)
    # A platform was added: asked before it is built.
    session.ask(built, "why", "framework-low", "--dry")
    built.write("venvstacks.toml", STACK.replace('name = "hello"', 'name = "hallo"'))
    built.ok("build")
    # A layer got another name.
    session.ask(built, "why", "app-hallo")
    built.write("hello.py", "import alpha\n")
    built.write("world/names.py", "NAME = 'narrow'\n")
    built.replace("venvstacks.toml", '["gamma"]', '["gamma", "beta"]')
    built.ok("build")
    # Several changes at once.
    session.ask(built, "why")
    session.ask(built, "runs")
    session.ask(built, "diff", "last~1", "last")
    assert session.text == DEFINITIONS


ANOTHER_PYTHON = """\
$ strata graph why framework-low --dry
framework-low/link  may run, as far as can be known  (if it were built now)

because  parameter-changed venvstacks.toml#runtimes.python.python_implementation
           X.Y → A.B
         6 actions

because  parameter-changed venvstacks.toml#runtimes.python.python_implementation
           X.Y.Z → A.B.C
         2 actions

"""


@pytest.mark.skipif(not OTHERS, reason="there is one Python here")
def test_another_python(built: Space) -> None:
    session = Session()
    built.write("venvstacks.toml", STACK.replace(OWN, OTHERS[0].version))
    session.ask(built, "why", "framework-low", "--dry")
    assert session.text == ANOTHER_PYTHON


OUTPUTS = """\
$ strata graph why app-hello
app-hello/link  cached, not executed  (run RUN, AGO)

because  output-missing _build/app-hello
         nothing ran for it: the store had it

$ strata graph why
run RUN, build, AGO: 1 cached of 24 actions in SECONDS

because  output-tampered _build/framework-up
         nothing ran for it: the store had it, from framework-up/link

$ strata graph why app-hello
app-hello/link  executed in SECONDS  (run RUN, AGO)

because  forced app-hello/link
         1 action, SECONDS

"""


def test_outputs(built: Space) -> None:
    session = Session()
    shutil.rmtree(built.layer("app-hello"))
    built.ok("build")
    # A layer's folder is gone.
    session.ask(built, "why", "app-hello")
    (built.layer("framework-up") / "notes.txt").write_text("mine")
    built.ok("build")
    # Somebody wrote into another one.
    session.ask(built, "why")
    built.ok("build", "--force", "app-hello/link")
    # It was to run in any case.
    session.ask(built, "why", "app-hello")
    assert session.text == OUTPUTS


THE_STORE = """\
$ strata graph why app-hello
app-hello/link  executed in SECONDS  (run RUN, AGO)

because  cache-entry-missing app-hello/link
         1 action, SECONDS

$ strata graph why app-world
app-world/link  executed in SECONDS  (run RUN, AGO)

because  cache-entry-corrupt app-world/link
         1 action, SECONDS

$ strata graph why framework-up
framework-up/link  executed in SECONDS  (run RUN, AGO)

because  cache-blob-lost framework-up/link
         1 action, SECONDS

because  output-missing _build/framework-up
         1 action, SECONDS

$ strata graph why
run RUN, build, AGO: 19 executed of 24 actions in SECONDS

because  evicted store
         19 actions, SECONDS

"""


def test_the_store(built: Space) -> None:
    session = Session()
    keys = built.build().keys
    with sqlite3.connect(built.store / "cache.db") as database:
        row = b"a" + bytes.fromhex(keys["app-hello/link"].partition("/")[0])
        assert database.execute("DELETE FROM Cache WHERE key = ?", (row,)).rowcount == 1
    built.ok("build", "--force", "framework-up/lock")
    built.forget_snapshots()
    built.ok("build", "app-hello/link")
    # What the store had of one action is gone.
    session.ask(built, "why", "app-hello")
    with sqlite3.connect(built.store / "cache.db") as database:
        row = b"a" + bytes.fromhex(keys["app-world/link"].partition("/")[0])
        assert database.execute("UPDATE Cache SET value = x'00' WHERE key = ?", (row,)).rowcount == 1
    built.ok("build", "app-world/link")
    # What it had of another one is damaged.
    session.ask(built, "why", "app-world")
    [output] = [
        report["output"]
        for line in built.read(".strata/runs.jsonl").splitlines()
        for report in json.loads(line)["actions"]
        if report["label"] == "framework-up/link"
    ]
    with sqlite3.connect(built.store / "cache.db") as database:
        row = b"b" + bytes.fromhex(output.partition("/")[0])
        assert database.execute("UPDATE Cache SET value = x'00' WHERE key = ?", (row,)).rowcount == 1
    built.forget_snapshots()
    shutil.rmtree(built.layer("framework-up"))
    built.ok("build")
    # A blob is damaged that has to be put in its place again.
    session.ask(built, "why", "framework-up")
    built.ok("cache", "clear")
    built.forget_snapshots()
    built.ok("build")
    # The whole store was emptied.
    session.ask(built, "why")
    assert session.text == THE_STORE


FAILURES = """\
$ strata graph why app-world/lock
app-world/lock  failed in SECONDS  (run RUN, AGO)

because  parameter-changed venvstacks.toml#applications.world.requirements
           zeta → zeta==9
           venvstacks.toml:26  zeta → zeta==9
         1 action, SECONDS

$ strata graph why app-world/link
app-world/link  skipped because of app-world/lock  (run RUN, AGO)

app-world/lock  failed in SECONDS

because  parameter-changed venvstacks.toml#applications.world.requirements
           zeta → zeta==9
           venvstacks.toml:26  zeta → zeta==9
         1 action, SECONDS

$ strata graph why app-world/lock
app-world/lock  executed in SECONDS  (run RUN, AGO)

because  parameter-changed venvstacks.toml#applications.world.requirements
           (none) → epsilon
           venvstacks.toml:26  + epsilon
         5 actions, SECONDS

because  parameter-changed venvstacks.toml#applications.world.requirements
           zeta → zeta==9
           venvstacks.toml:26  zeta → zeta==9
         5 actions, SECONDS
way      app-world/lock  DIGEST → (nothing)  (run RUN)
         app-world/lock  (none) → DIGEST

because  parameter-changed venvstacks.toml#applications.world.requirements
           zeta==9 → zeta
           venvstacks.toml:26  zeta==9 → zeta
         5 actions, SECONDS

"""


def test_failures(built: Space) -> None:
    session = Session()
    built.replace("venvstacks.toml", '["zeta"]', '["zeta==9"]')
    assert built.strata("build").code == 2
    # A lock failed: asked of it, and of what was not tried because of it.
    session.ask(built, "why", "app-world/lock")
    session.ask(built, "why", "app-world/link")
    built.replace("venvstacks.toml", '["zeta==9"]', '["zeta", "epsilon"]')
    built.ok("build")
    # It was mended.
    session.ask(built, "why", "app-world/lock")
    assert session.text == FAILURES


WHAT_HAS_NO_ANSWER = """\
$ strata graph why app-hello
error[no-history]: no build has been recorded here, of `app-hello` or anything else
hint: `strata build` leaves a record of every build

$ strata graph why app-world/link
error[no-history]: no recorded build has made `app-world/link`
hint: `strata build` leaves a record of every build

$ strata graph why app-helo
error[unknown-label]: no recorded build has had `app-helo`
hint: did you mean `app-hello`?

"""


def test_what_has_no_answer(space: Space) -> None:
    session = Session()
    # No build was ever recorded.
    session.ask(space, "why", "app-hello", code=2)
    space.ok("build", "framework-low/lock")
    # A label that was never made here.
    session.ask(space, "why", "app-world/link", code=2)
    # One that there is not.
    session.ask(space, "why", "app-helo", code=2)
    assert session.text == WHAT_HAS_NO_ANSWER


WHAT_IS_NO_INPUT = """\
$ strata graph why-not app-hello --input world/names.py
world/names.py
is not an input of app-hello/link, nor of anything that it depends on
nearest are
  hello.py
  wheels/
  requirements/python/runtime.python.json
  $MACOSX_DEPLOYMENT_TARGET

$ strata graph why --output _build/framework-low/lib/pythonX.Y/site-packages/alpha.py
_build/framework-low/lib/pythonX.Y/site-packages/alpha.py
put there by framework-low/link  tree/lib/pythonX.Y/site-packages/alpha.py
from         framework-low/install  tree/lib/pythonX.Y/site-packages/alpha.py
made by      wheel/alpha-1.0-py3-none-any.whl  purelib/alpha.py
out of       fetch/alpha-1.0-py3-none-any.whl

"""


def test_what_is_no_input(built: Space) -> None:
    session = Session()
    session.ask(built, "why-not", "app-hello", "--input", "world/names.py")
    site = built.site("framework-low").relative_to(built.root)
    session.ask(built, "why", "--output", f"{site}/alpha.py")
    assert session.text == WHAT_IS_NO_INPUT
