"""The rule of a layer's bytecode: one Bytecode action per wheel and runtime, one Compile action per layer.

It knows no wheel by itself: which there are is known when the layer is installed, so an expansion after that adds
their actions. Layers on one runtime that have the same wheel add the same action under the same label.

Nothing of a target is run on another platform: a layer for one is given on as it was linked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from strata_engine.action import Action, Expansion, Ref
from strata_engine.rule import RuleContext
from strata_rules.bytecode.layer import compile_action
from strata_rules.bytecode.modules import bytecode_action
from strata_rules.providers import CompiledInfo, InstallInfo, LinkInfo, RuntimeInfo

WHEELS = "wheels/"
"""What the names of an Install action's inputs begin with where they are unpacked wheels."""
LIBRARY = "stdlib"
"""What a runtime's own modules are called where wheels have their file names."""


class BytecodeAttrs(msgspec.Struct, frozen=True, kw_only=True):
    """What this rule's target is given. Its dependencies give the InstallInfo, LinkInfo and RuntimeInfo."""

    layer: str
    platform: str
    host: str
    """This machine's platform: the one that can run its runtimes."""


def bytecode(ctx: RuleContext) -> tuple[CompiledInfo]:
    """Add the actions of one layer on one platform."""
    attrs = ctx.attrs(BytecodeAttrs)
    link, runtime, installed = ctx.one(LinkInfo), ctx.one(RuntimeInfo), ctx.one(InstallInfo)
    tree = checked = link.tree
    if attrs.platform == attrs.host:
        plain, strict = f"{attrs.layer}/compile", f"{attrs.layer}/compile[checked]"
        tree, checked = Ref(plain), Ref(strict)
        own = {}
        if runtime.layer == attrs.layer:
            library = bytecode_action(_label(runtime, LIBRARY), runtime.tree, "the standard library", runtime)
            ctx.add(library)
            own = {LIBRARY: (runtime.tree, Ref(library.label))}

        def expand(_: Callable[[Ref], bytes]) -> Iterable[Action]:
            made = dict(own)
            for file, wheel in _wheels(ctx, installed):
                action = bytecode_action(_label(runtime, file), wheel, file, runtime)
                yield action
                made[file] = (wheel, Ref(action.label))
            yield compile_action(plain, link, runtime, made, checked=False)
            yield compile_action(strict, link, runtime, made, checked=True)

        ctx.add(
            Expansion(
                label=f"{attrs.layer}/bytecode",
                after=(installed.packages,),
                promises=(plain, strict),
                expand=expand,
            )
        )
    return (
        CompiledInfo(
            layer=attrs.layer, install_target=link.install_target, platform=attrs.platform, tree=tree, checked=checked
        ),
    )


def _label(runtime: RuntimeInfo, what: str) -> str:
    return f"{runtime.layer}/bytecode[{what}]"


def _wheels(ctx: RuleContext, installed: InstallInfo) -> Iterable[tuple[str, Ref]]:
    """List the unpacked wheels of a layer that is installed, by their names in labels."""
    install = ctx.item(installed.tree.label)
    assert isinstance(install, Action)
    for name, wheel in install.inputs.items():
        if name.startswith(WHEELS) and isinstance(wheel, Ref):
            yield wheel.label.partition("/")[2], wheel
