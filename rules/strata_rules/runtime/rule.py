"""The rule of a runtime layer: Download and Unpack, or Capture, and the `RuntimeInfo` that other rules read.

It knows no choice and no network: what was chosen at the rim, and how to download, are its attributes.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from strata_engine.action import Ref
from strata_engine.errors import Place
from strata_engine.rule import RuleContext
from strata_rules.download.client import Network
from strata_rules.providers import RuntimeInfo
from strata_rules.runtime.capture import Capturing, capture_action
from strata_rules.runtime.choose import ArchiveChoice, Chosen, LocalChoice, PbsChoice
from strata_rules.runtime.pbs import Downloading, download_action
from strata_rules.runtime.unpack import Unpacking, unpack_action


class RuntimeAttrs(msgspec.Struct, frozen=True, kw_only=True):
    """What the rule is given."""

    layer: str
    platform: str
    host: str
    """This machine's platform: the one whose labels have no suffix."""
    implementation: str
    chosen: Chosen
    pin_path: Path
    network: Network
    folder_for_parts: Path
    place: Place | None = None


def runtime(ctx: RuleContext) -> tuple[RuntimeInfo]:
    """Add the actions of one runtime on one platform."""
    attrs = ctx.attrs(RuntimeAttrs)
    chosen = attrs.chosen
    label, provider = _add(ctx, attrs)
    return (
        RuntimeInfo(
            layer=attrs.layer,
            implementation=attrs.implementation,
            version=chosen.version,
            platform=attrs.platform,
            tree=Ref(label, "tree"),
            facts=Ref(label, "facts.json"),
            provider=provider,
        ),
    )


def _add(ctx: RuleContext, attrs: RuntimeAttrs) -> tuple[str, str]:
    """Add the actions; give the label of the one whose output is the runtime, and the provider's name."""
    match attrs.chosen:
        case PbsChoice(version=version, urls=urls, sha256=sha256):
            return _download(ctx, attrs, version, urls, sha256), "pbs"
        case ArchiveChoice(version=version, url=url, sha256=sha256):
            return _download(ctx, attrs, version, (url,), sha256), "archive"
        case LocalChoice() as chosen:
            return _capture(ctx, attrs, chosen), "local"


def _label(attrs: RuntimeAttrs, action: str) -> str:
    suffix = "" if attrs.platform == attrs.host else f"[{attrs.platform}]"
    return f"{attrs.layer}/{action}{suffix}"


def _download(ctx: RuleContext, attrs: RuntimeAttrs, version: str, urls: tuple[str, ...], sha256: str) -> str:
    name = f"{attrs.implementation} {version} for {attrs.platform}"
    download, unpack = _label(attrs, "download"), _label(attrs, "unpack")
    ctx.add(
        download_action(
            Downloading(
                label=download,
                name=name,
                urls=urls,
                sha256=sha256,
                network=attrs.network,
                folder_for_parts=attrs.folder_for_parts,
                place=attrs.place,
            )
        )
    )
    ctx.add(
        unpack_action(
            Unpacking(
                label=unpack,
                archive=Ref(download),
                implementation=attrs.implementation,
                version=version,
                platform=attrs.platform,
                place=attrs.place,
            )
        )
    )
    return unpack


def _capture(ctx: RuleContext, attrs: RuntimeAttrs, chosen: LocalChoice) -> str:
    wanted = Capturing(
        layer=attrs.layer,
        version=chosen.version,
        platform=attrs.platform,
        identity=chosen.identity,
        pinned=chosen.tree,
        find=chosen.find,
        pin_path=attrs.pin_path,
        place=attrs.place,
    )
    action = capture_action(wanted)
    ctx.add(action)
    return action.label
