"""Messages of the Remote Execution API: the only door to the protobuf runtime.

`protos/` declares the part that we use; `reapi.binpb` is those files compiled, and a test compiles them again. There is
no generated code: it would want one release of the runtime, and a package called `build`. The declarations go into a
pool of our own, because a process has one for all, where nothing may be declared twice.

What is read is hostile: `parsed` raises ValueError, and nothing else, for what is no message of its kind.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from strata_engine.digest import Digest, is_sha256

Message: TypeAlias = Any
"""A message: its fields are attributes. What kind it is only its declaration knows, at run time."""

SET = "reapi.binpb"
"""The compiled declarations, beside this module."""

SHA256 = 1
"""`DigestFunction.Value`."""
IDENTITY, ZSTD = 0, 1
"""`Compressor.Value`."""


def new(kind: str, /, **fields: Any) -> Message:
    """Make a message; `kind` is its name without the package."""
    return _declared()[0][kind](**fields)


def parsed(kind: str, data: bytes) -> Message:
    """Read a message. Raises ValueError where it is malformed."""
    try:
        return _declared()[0][kind].FromString(data)
    except DecodeError:
        raise ValueError(f"not a {kind}") from None


def encoded(message: Message) -> bytes:
    """Write a message."""
    return bytes(message.SerializeToString(deterministic=True))


def path(method: str) -> str:
    """Give what a method, `SERVICE.METHOD`, is called on the wire."""
    return _declared()[1][method]


def of_digest(digest: Digest) -> Message:
    """Make a `Digest`."""
    return new("Digest", hash=digest.hash, size_bytes=digest.size)


def to_digest(message: Message) -> Digest | None:
    """Read a `Digest`; None where it names nothing."""
    if not is_sha256(message.hash) or message.size_bytes < 0:
        return None
    return Digest(message.hash, message.size_bytes)


@functools.cache
def _declared() -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """Load the declarations: the class of each message, the path of each method."""
    data = files("strata_engine.remote").joinpath(SET).read_bytes()
    pool = descriptor_pool.DescriptorPool()
    classes: dict[str, Any] = {}
    paths: dict[str, str] = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.Add(file)
        for message in file.message_type:
            for name in (message.name, *(f"{message.name}.{inner.name}" for inner in message.nested_type)):
                classes[name] = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))
        for service in file.service:
            for method in service.method:
                paths[f"{service.name}.{method.name}"] = f"/{file.package}.{service.name}/{method.name}"
    return classes, paths
