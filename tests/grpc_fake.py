"""A server of the Remote Execution API in memory, which misbehaves as it is told, and compresses where it says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
import zstandard
from google.protobuf import any_pb2, duration_pb2

from strata_engine.digest import EMPTY, Digest
from strata_engine.remote import messages
from strata_engine.remote.messages import encoded, new, parsed

PIECE = 64 << 10
BOMB = zstandard.compress(bytes(64 << 20))
UNARY = {
    "GetCapabilities": "_offered",
    "GetActionResult": "_result",
    "UpdateActionResult": "_keep_result",
    "FindMissingBlobs": "_missing",
    "BatchReadBlobs": "_read_many",
    "BatchUpdateBlobs": "_write_many",
    "QueryWriteStatus": "_arrived",
}


class Fake:
    """A cache. `manner(number, method)` says how each call is answered: see the methods of `_Answers`."""

    def __init__(self, compression: grpc.Compression = grpc.Compression.NoCompression) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.implied = {EMPTY}
        """What it has without being given it."""
        self.results: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}
        self.offers: dict[str, Any] = {
            "digest_functions": [1],
            "zstd": False,
            "action_cache_update_capabilities": new("ActionCacheUpdateCapabilities", update_enabled=True),
        }
        self.versions = ((2, 0), (2, 11))
        self.manner: Callable[[int, str], str] = lambda number, method: "well"
        self.seen: list[tuple[str, Any, dict[str, Any]]] = []
        self.login = ""
        self.released = threading.Event()
        self.lock = threading.Lock()
        self._server = grpc.server(
            ThreadPoolExecutor(12),
            handlers=(_Handlers(self),),
            compression=compression,
            options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", 4 << 20)],
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.url = f"grpc://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.stop(0).wait(10)

    def script(self, *manners: str) -> None:
        """Answer the next calls in these manners, and those after in the last; capabilities are always told well."""
        start = len(self.methods())
        self.manner = lambda number, method: manners[min(number - start, len(manners) - 1)]

    def methods(self) -> list[str]:
        """Give the calls so far, but for those that ask what it offers."""
        return [method for method, _, _ in self.seen if method != "GetCapabilities"]

    def put(self, data: bytes) -> Digest:
        self.blobs[Digest.of(data)] = data
        return Digest.of(data)


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, fake: Fake) -> None:
        self._fake = fake

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        answers = _Answers(self._fake, name, dict(details.invocation_metadata))
        if name == "Write":
            return grpc.stream_unary_rpc_method_handler(answers.write)
        if name in {"Read", "GetTree"}:
            return grpc.unary_stream_rpc_method_handler(answers.streamed)
        if name in UNARY:
            return grpc.unary_unary_rpc_method_handler(answers.one)
        return None


class _Answers:
    """One call."""

    def __init__(self, fake: Fake, name: str, metadata: dict[str, Any]) -> None:
        self.fake = fake
        self.name = name
        self.metadata = metadata
        self.how = "well"

    def _begin(self, request: Any, context: Any) -> None:
        with self.fake.lock:
            number = len(self.fake.methods())
            self.fake.seen.append((self.name, request, self.metadata))
        self.how = "well" if self.name == "GetCapabilities" else self.fake.manner(number, self.name)
        if self.fake.login and self.metadata.get("authorization") != self.fake.login:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you, s3cret?")
        if self.how.startswith("status "):
            self._fail(context, self.how.removeprefix("status "))
        if self.how.startswith("wait "):
            delay = duration_pb2.Duration(seconds=int(self.how.removeprefix("wait ")))
            info = any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\x0a" + _sized(delay))
            status = encoded(new("Status", code=14, details=[messages.new("Any", **_fields(info))]))
            context.set_trailing_metadata((("grpc-status-details-bin", status),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "s3cret")
        if self.how == "silent":
            self.fake.released.wait(20)
            context.abort(grpc.StatusCode.CANCELLED, "")

    def _fail(self, context: Any, name: str) -> None:
        context.abort(getattr(grpc.StatusCode, name), "s3cret words of the server")

    def one(self, data: bytes, context: Any) -> bytes:
        request = parsed(f"{self.name}Request", data)
        self._begin(request, context)
        if self.how == "garbage":
            return b"\xff\xff\xff\xff"
        if self.how == "huge":
            return b"\x52" + b"\x80\x80\xc0\x08" + bytes(17 << 20)
        if self.how == "nothing":
            return b""
        return bytes(getattr(self, UNARY[self.name])(request, context))

    # -- unary ---------------------------------------------------------------------------------------------------------

    def _offered(self, request: Any, context: Any) -> bytes:
        fields = dict(self.fake.offers)
        if fields.pop("zstd"):
            fields |= {"supported_compressors": [1], "supported_batch_update_compressors": [1]}
        if request.instance_name == "nowhere":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such instance")
        low, high = (new("SemVer", major=major, minor=minor) for major, minor in self.fake.versions)
        cache = new("CacheCapabilities", **fields)
        return encoded(new("ServerCapabilities", cache_capabilities=cache, low_api_version=low, high_api_version=high))

    def _result(self, request: Any, context: Any) -> bytes:
        found = self.fake.results.get(request.action_digest.hash)
        if found is None:
            self._fail(context, "NOT_FOUND")
        assert found is not None
        return found

    def _keep_result(self, request: Any, context: Any) -> bytes:
        self.fake.results[request.action_digest.hash] = encoded(request.action_result)
        return encoded(request.action_result)

    def _missing(self, request: Any, context: Any) -> bytes:
        asked = [messages.to_digest(digest) for digest in request.blob_digests]
        missing = [digest for digest in asked if digest not in {*self.fake.blobs, *self.fake.implied}]
        if self.how == "foreign":
            missing = [Digest.of(b"foreign")]
        listed = [messages.of_digest(digest) for digest in missing if digest]
        return encoded(new("FindMissingBlobsResponse", missing_blob_digests=listed))

    def _read_many(self, request: Any, context: Any) -> bytes:
        responses = []
        for number, asked in enumerate(request.digests):
            named, digest = asked, messages.to_digest(asked)
            assert digest is not None
            data = self.fake.blobs.get(digest)
            status = new("Status", code=5) if data is None else None
            compressor, data = 0, data or b""
            if 1 in request.acceptable_compressors:
                compressor, data = 1, zstandard.compress(data)
            if self.how == "one fails" and number == 1:
                status, data = new("Status", code=14, message="s3cret"), b""
            if self.how == "omit" and number % 2:
                continue
            if self.how == "foreign":
                named = messages.of_digest(Digest.of(b"foreign"))
            if self.how == "bomb":
                compressor, data = 1, BOMB
            if self.how == "odd":
                compressor = 3
            responses.append({"digest": named, "data": self._spoilt(data), "status": status, "compressor": compressor})
        made = [new("BatchReadBlobsResponse.Response", **fields) for fields in responses]
        return encoded(new("BatchReadBlobsResponse", responses=made))

    def _write_many(self, request: Any, context: Any) -> bytes:
        responses = []
        for number, blob in enumerate(request.requests):
            data = zstandard.decompress(blob.data, 1 << 24) if blob.compressor == 1 else blob.data
            digest = messages.to_digest(blob.digest)
            assert digest is not None
            code = 0 if Digest.of(data) == digest else 3
            if self.how == "one fails" and number == 1:
                code = 14
            code = {"full": 8, "busy": 14}.get(self.how, code)
            if not code:
                self.fake.blobs[digest] = data
            if self.how == "omit" and number % 2:
                continue
            responses.append(
                new("BatchUpdateBlobsResponse.Response", digest=blob.digest, status=new("Status", code=code))
            )
        return encoded(new("BatchUpdateBlobsResponse", responses=responses))

    def _arrived(self, request: Any, context: Any) -> bytes:
        if request.resource_name not in self.fake.uploads:
            self._fail(context, "NOT_FOUND")
        size = len(self.fake.uploads[request.resource_name])
        size = {"behind": 10, "ahead": 1 << 40, "below": -5}.get(self.how, size)
        return encoded(new("QueryWriteStatusResponse", committed_size=size, complete=self.how == "complete"))

    # -- streams -------------------------------------------------------------------------------------------------------

    def streamed(self, data: bytes, context: Any) -> Iterator[bytes]:
        request = parsed(f"{self.name}Request", data)
        self._begin(request, context)
        if self.name == "GetTree":
            yield from self._tree(request)
            return
        parts = request.resource_name.split("/")
        found = self.fake.blobs.get(Digest(parts[-2], int(parts[-1])))
        if found is None:
            self._fail(context, "NOT_FOUND")
        assert found is not None
        rest = found[request.read_offset :]
        if self.how == "cut":
            rest = rest[: len(rest) // 2]
        rest = self._spoilt(rest)
        if "compressed-blobs" in parts:
            rest = zstandard.compress(rest)
            if self.how == "bomb":
                rest = BOMB
        if self.how == "garbage":
            yield b"\xff\xff\xff"
        if self.how == "huge":
            yield encoded(new("ReadResponse", data=bytes(17 << 20)))
        if self.how == "stall":
            rest = rest[: len(rest) // 2]
        for at in range(0, len(rest), PIECE):
            yield encoded(new("ReadResponse", data=rest[at : at + PIECE]))
        yield from self._after(context)

    def _after(self, context: Any) -> Iterator[bytes]:
        if self.how == "cut":
            self._fail(context, "UNAVAILABLE")
        while self.how == "endless" and context.is_active():
            yield encoded(new("ReadResponse", data=bytes(PIECE)))
        while self.how == "drip" and context.is_active() and not self.fake.released.wait(0.02):
            yield b""
        if self.how == "stall":
            self.fake.released.wait(20)

    def _tree(self, request: Any) -> Iterator[bytes]:
        """Give a Directory per page, and each page in a call of its own."""
        if self.how == "unknown":
            return
        digests = [Digest(request.root_digest.hash, request.root_digest.size_bytes)]
        for digest in digests:
            directory = parsed("Directory", self.fake.blobs.get(digest, b""))
            digests += [Digest(below.digest.hash, below.digest.size_bytes) for below in directory.directories]
        at = int(request.page_token or 0)
        data = self.fake.blobs.get(digests[at])
        token = str(at + 1) if at + 1 < len(digests) else ""
        if self.how == "circle":
            token = "0"
        listed = [] if data is None else [parsed("Directory", data)]
        if self.how == "wrong" and listed:
            listed[0].symlinks.add(name="x", target="y")
        yield encoded(new("GetTreeResponse", directories=listed, next_page_token=token))

    def write(self, pieces: Iterator[bytes], context: Any) -> bytes:
        first = parsed("WriteRequest", next(pieces))
        self._begin(first, context)
        name = first.resource_name
        parts = name.split("/")
        digest, packed = Digest(parts[-2], int(parts[-1])), "compressed-blobs" in parts
        if self.how == "early":
            return encoded(new("WriteResponse", committed_size=-1 if packed else digest.size))
        if self.how in {"partial", "negative"}:
            return encoded(new("WriteResponse", committed_size=5 if self.how == "partial" else -7))
        kept = self.fake.uploads.setdefault(name, bytearray())
        if first.write_offset != len(kept):
            self._fail(context, "INVALID_ARGUMENT")
        request, finished = first, False
        while True:
            kept += request.data
            finished = finished or request.finish_write
            if self.how == "cut" and len(kept) >= min(digest.size // 2, 600_000):
                self._fail(context, "UNAVAILABLE")
            following = next(pieces, None)
            if following is None:
                break
            request = parsed("WriteRequest", following)
        if self.how == "garbage":
            return b"\xff\xff\xff"
        data = zstandard.ZstdDecompressor().decompressobj().decompress(bytes(kept)) if packed else bytes(kept)
        if not finished or Digest.of(data) != digest:
            self._fail(context, "INVALID_ARGUMENT")
        self.fake.blobs[digest] = data
        return encoded(new("WriteResponse", committed_size=len(kept)))

    def _spoilt(self, data: bytes) -> bytes:
        match self.how:
            case "wrong":
                return data[:-1] + bytes([data[-1] ^ 1]) if data else b"x"
            case "longer":
                return data + b"x"
            case "shorter":
                return data[:-1]
            case _:
                return data


def _sized(message: Any) -> bytes:
    data = message.SerializeToString()
    return bytes([len(data)]) + data


def _fields(message: Any) -> dict[str, Any]:
    return {"type_url": message.type_url, "value": message.value}
