"""Our declaration of the Remote Execution API: compiled anew, and what our own encodings are in the official runtime.

After a change of `protos/`: `STRATA_UPDATE_REAPI=1 python -m pytest tests/engine/test_remote_messages.py`.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from strata_engine.remote import messages

PROTOS = Path(str(files("strata_engine.remote"))) / "protos"
SHIPPED = PROTOS.parent / messages.SET


def compiled(target: Path) -> bytes:
    well_known = files("grpc_tools") / "_proto"
    sources = sorted(path.name for path in PROTOS.glob("*.proto"))
    arguments = [f"-I{PROTOS}", f"-I{well_known}", "--include_imports", f"--descriptor_set_out={target}", *sources]
    assert protoc.main(["protoc", *arguments]) == 0
    return target.read_bytes()


def test_what_is_shipped_is_what_is_declared(tmp_path: Path) -> None:
    made = compiled(tmp_path / "made")
    if os.environ.get("STRATA_UPDATE_REAPI"):
        SHIPPED.write_bytes(made)
    ours, anew = (descriptor_pb2.FileDescriptorSet.FromString(data) for data in (SHIPPED.read_bytes(), made))
    # Another compiler may order files otherwise, or have a newer `google/protobuf`.
    declared = [{file.name: file for file in each.file if not file.name.startswith("google/")} for each in (ours, anew)]
    assert set(declared[0]) == {path.name for path in PROTOS.glob("*.proto")}
    assert declared[0] == declared[1]
