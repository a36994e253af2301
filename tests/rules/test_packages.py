"""Packages: from a lock's content to the actions of a layer."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata_engine.action import Action, Expansion, Literal, Ref
from strata_engine.digest import digest_file
from strata_engine.errors import SpecError
from strata_engine.graph import ActionGraph
from strata_engine.rule import RuleContext, Target, analyze
from strata_engine.tree import File, lookup
from strata_rules.download.client import Network
from strata_rules.providers import InstallInfo, LockInfo, RuntimeInfo
from strata_rules.wheel.fetch import Access
from strata_rules.wheel.packages import PackagesAttrs, packages

HOST = "linux_x86_64"


def made(label: str) -> Action:
    return Action(label=label, mnemonic="Made", version=1, run=lambda execution: File(execution.store.put(b"")))


def lock_of(layer: str):
    def rule(ctx: RuleContext):
        ctx.add(made(f"{layer}/lock"))
        return (LockInfo(layer=layer, pylock=Ref(f"{layer}/lock", "pylock.toml"), pins=Ref(f"{layer}/lock", "pins")),)

    return Target(name=f"{layer}/lock", rule=rule)


def runtime_of(platform: str):
    def rule(ctx: RuleContext):
        ctx.add(made(f"rt/unpack[{platform}]"))
        return (
            RuntimeInfo(
                layer="rt",
                implementation="cpython",
                version="3.11.9",
                platform=platform,
                tree=Ref(f"rt/unpack[{platform}]", "tree"),
                facts=Ref(f"rt/unpack[{platform}]", "facts.json"),
                provider="pbs",
            ),
        )

    return Target(name=f"rt[{platform}]", rule=rule)


def pylock(*wheels: tuple[str, Path]) -> bytes:
    text = 'lock-version = "1.0"\ncreated-by = "uv"\n'
    for name, file in wheels:
        text += f'[[packages]]\nname = "{name}"\nversion = "1.0"\n'
        text += f'wheels = [{{ path = "wheels/{file.name}", hashes = {{ sha256 = "{digest_file(file).hash}" }} }}]\n'
    return text.encode()


class Stack:
    """A few layers on one runtime, analysed."""

    def __init__(self, folder: Path, platform: str = HOST) -> None:
        self.folder = folder
        self.platform = platform
        self.targets = [runtime_of(HOST), runtime_of("win_amd64")]

    def add(self, layer: str, *below: str, **options) -> None:
        attrs = PackagesAttrs(
            layer=layer,
            platform=self.platform,
            host=HOST,
            linux_target="glibc@2.28",
            macosx_target="13.0",
            lock_folder=self.folder,
            lock_file=f"requirements/{layer}/pylock.toml",
            access=Access(Network(offline=True), self.folder / "parts", self.folder),
            **options,
        )
        deps = (f"rt[{HOST}]", "rt[win_amd64]", f"{layer}/lock", *(f"{name}/lock" for name in below))
        self.targets += [lock_of(layer), Target(name=layer, rule=packages, attrs=attrs, deps=deps)]

    def expanded(self, locks: dict[str, bytes]) -> ActionGraph:
        """Analyse, and expand each layer with the content of its lock."""
        self.analysis = analyze(self.targets)
        graph = self.analysis.graph
        for item in list(graph):
            if isinstance(item, Expansion):
                for added in item.expand(lambda ref: locks[ref.label.removesuffix("/lock")]):
                    graph.add(added)
        graph.validate()
        return graph


def ours(graph: ActionGraph) -> list[str]:
    kinds = ("fetch/", "wheel/")
    return [label for label in graph.labels() if label.startswith(kinds) or "/install" in label]


def test_a_lock_becomes_a_fetch_and_a_wheel_each_and_one_install(bench, make_wheel, tmp_path):
    first, second = make_wheel("first", {"first.py": b"1"}), make_wheel("second", {"second.py": b"2"})
    stack = Stack(tmp_path)
    stack.add("framework-x")
    graph = stack.expanded({"framework-x": pylock(("second", second), ("first", first))})
    assert ours(graph) == [
        f"fetch/{first.name}",
        f"fetch/{second.name}",
        "framework-x/install",
        f"wheel/{first.name}",
        f"wheel/{second.name}",
    ]
    install = graph.item("framework-x/install")
    assert install.params["order"] == ["second", "first"]
    for label in ours(graph):
        if label.startswith("fetch/"):
            bench.run(graph.item(label))
    for label in ours(graph):
        if label.startswith("wheel/"):
            bench.run(graph.item(label))
    tree = bench.run(install)
    info = stack.analysis.get("framework-x", InstallInfo)
    assert lookup(bench.store, tree, f"{info.tree.path}/lib/python3.11/site-packages/first.py")
    assert lookup(bench.store, tree, info.packages.path)
    assert lookup(bench.store, tree, info.libraries.path)


def test_layers_share_what_they_select_alike(make_wheel, tmp_path):
    wheel = make_wheel("shared", {"shared.py": b"1"})
    stack = Stack(tmp_path)
    stack.add("app-a")
    stack.add("app-b")
    graph = stack.expanded({"app-a": pylock(("shared", wheel)), "app-b": pylock(("shared", wheel))})
    assert ours(graph) == ["app-a/install", "app-b/install", f"fetch/{wheel.name}", f"wheel/{wheel.name}"]


def test_a_wheel_that_differs_from_a_lower_layers_has_its_hash_in_the_label(make_wheel, tmp_path):
    wheel = make_wheel("local", {"local.py": b"1"})
    old = pylock(("local", wheel))
    wheel = make_wheel("local", {"local.py": b"2"})
    stack = Stack(tmp_path)
    stack.add("framework-x")
    stack.add("app-x", "framework-x")
    graph = stack.expanded({"framework-x": old, "app-x": pylock(("local", wheel))})
    suffix = f"{wheel.name}~{digest_file(wheel).hash[:8]}"
    assert ours(graph) == [
        "app-x/install",
        f"fetch/{wheel.name}",
        f"fetch/{suffix}",
        "framework-x/install",
        f"wheel/{wheel.name}",
        f"wheel/{suffix}",
    ]
    assert graph.item("app-x/install").inputs == {"wheels/local": Ref(f"wheel/{suffix}")}


def test_layers_beside_each_other_may_differ_in_one_wheel(make_wheel, tmp_path):
    wheel = make_wheel("local", {"local.py": b"1"})
    old = pylock(("local", wheel))
    wheel = make_wheel("local", {"local.py": b"2"})
    stack = Stack(tmp_path)
    for layer in ("app-a", "app-b"):
        stack.add(layer)
    graph = stack.expanded({"app-a": old, "app-b": pylock(("local", wheel))})
    suffix = f"{wheel.name}~{digest_file(wheel).hash[:8]}"
    assert graph.item("app-a/install").inputs == {"wheels/local": Ref(f"wheel/{wheel.name}")}
    assert graph.item("app-b/install").inputs == {"wheels/local": Ref(f"wheel/{suffix}")}
    assert graph.item(f"fetch/{suffix}").fixed == digest_file(wheel).hash


@pytest.mark.parametrize("order", [("app-a", "app-b"), ("app-b", "app-a")])
def test_labels_of_what_may_differ_do_not_depend_on_who_is_first(order, make_wheel, tmp_path):
    wheel = make_wheel("local", {"local.py": b"1"})
    locks, hashes = {"app-a": pylock(("local", wheel))}, {"app-a": digest_file(wheel).hash[:8]}
    wheel = make_wheel("local", {"local.py": b"2"})
    locks, hashes = locks | {"app-b": pylock(("local", wheel))}, hashes | {"app-b": digest_file(wheel).hash[:8]}
    stack = Stack(tmp_path)
    for layer in order:
        stack.add(layer, contested=frozenset({"local"}))
    graph = stack.expanded(locks)
    for layer in order:
        assert graph.item(f"{layer}/install").inputs == {"wheels/local": Ref(f"wheel/{wheel.name}~{hashes[layer]}")}


def test_another_platform_is_named_and_has_its_own_layout(make_wheel, tmp_path):
    stack = Stack(tmp_path, "win_amd64")
    stack.add("app-x")
    graph = stack.expanded({"app-x": pylock(("pure", make_wheel("pure", {})))})
    assert "app-x/install[win_amd64]" in graph.labels()
    params = graph.item("app-x/install[win_amd64]").params
    assert params["schemes"]["purelib"] == "Lib/site-packages"
    assert params["windows"]
    assert params["ignores_case"]
    assert stack.analysis.get("app-x", InstallInfo).tree == Ref("app-x/install[win_amd64]", "tree")


def test_a_runtime_layer_reads_the_runtimes_tree(tmp_path):
    stack = Stack(tmp_path)
    stack.add("rt", is_runtime=True)
    graph = stack.expanded({"rt": pylock()})
    assert graph.item("rt/install").inputs == {"runtime": Ref(f"rt/unpack[{HOST}]", "tree")}
    assert not any(isinstance(given, Literal) for given in graph.item("rt/install").inputs.values())


def test_a_package_without_a_wheel_for_the_platform_is_told(make_wheel, tmp_path):
    stack = Stack(tmp_path)
    stack.add("app-x")
    wheel = make_wheel("native", {}, tag="cp311-cp311-win_amd64")
    with pytest.raises(SpecError) as caught:
        stack.expanded({"app-x": pylock(("native", wheel))})
    assert [diagnostic.id for diagnostic in caught.value.diagnostics] == ["no-wheel"]
