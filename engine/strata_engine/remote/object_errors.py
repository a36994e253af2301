"""What obstore says went wrong, in words of our own: its texts quote URLs, which may be signed, and the server.

It knows texts alone. What a status has been given for is searched first, then what stores call it themselves, then
obstore's own words. Where they change, faults are told less well, and stay faults.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from strata_engine.remote.backend import Fault, Trouble


class Absent(Exception):  # noqa: N818 - no error: it is one of two answers
    """There is no such object."""


class OtherPart(Fault):
    """Not the part of an object that was asked for; all of it may still be had."""


_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_OWN_ROLE = re.compile(r"performing \w+ http://169\.254\.")
_WRITES = re.compile(r"performing (PUT|POST) ")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")

_CODES = {
    "NoSuchBucket": (Trouble.UNREACHABLE, "there is no such bucket", False),
    "ContainerNotFound": (Trouble.UNREACHABLE, "there is no such container", False),
    "ContainerBeingDeleted": (Trouble.UNREACHABLE, "the container is being deleted", False),
    "ExpiredToken": (Trouble.REFUSED, "the credentials have expired", False),
    "InvalidToken": (Trouble.REFUSED, "the credentials are not valid", False),
    "InvalidAccessKeyId": (Trouble.REFUSED, "the access key is not known there", False),
    "SignatureDoesNotMatch": (Trouble.REFUSED, "the secret key is another one there", False),
    "AuthenticationFailed": (Trouble.REFUSED, "the credentials are not valid", False),
    "RequestTimeTooSkewed": (Trouble.REFUSED, "the clock of this machine is wrong", False),
    "AuthorizationHeaderMalformed": (Trouble.UNSUPPORTED, "the bucket is in another region than `AWS_REGION`", False),
    "PermanentRedirect": (Trouble.UNSUPPORTED, "the bucket is in another region than `AWS_REGION`", False),
    "QuotaExceeded": (Trouble.FULL, "its quota is used up", False),
    "EntityTooLarge": (Trouble.FULL, "an object that is too large for it", False),
    "SlowDown": (Trouble.FAILING, "it asks for fewer requests", True),
    "ServerBusy": (Trouble.FAILING, "it asks for fewer requests", True),
}
"""What object stores say themselves; everything else goes by its status."""

_STATUSES = {
    Trouble.REFUSED: {401, 403, 407},
    Trouble.FULL: {413, 507},
    Trouble.FAILING: {408, 425, 429, 500, 502, 503, 504},
}

_OTHER_PART = ("non-partial response", "Content-Range", "UnexpectedRange", "InvalidRangeRequest")

_WORDS = (
    ("kind: Timeout", (Trouble.UNREACHABLE, "no connection within {connect:g} s", False)),
    ("InvalidCertificate", (Trouble.UNREACHABLE, "its certificate is not valid here", False)),
    ("dns error", (Trouble.UNREACHABLE, "no such host", True)),
    ("ConnectionRefused", (Trouble.UNREACHABLE, "Connection refused", True)),
    ("kind: Connect", (Trouble.UNREACHABLE, "no connection", True)),
    ("error following redirect", (Trouble.UNSUPPORTED, "it redirects", False)),
    ("without LOCATION", (Trouble.UNSUPPORTED, "the bucket is in another region than `AWS_REGION`", False)),
    ("HTTP error", (Trouble.BROKEN, "an answer that was cut or makes no sense", True)),
    (
        "Content-Length Header missing",
        (Trouble.BROKEN, "an answer of which nobody can tell whether it is whole", False),
    ),
    ("ETag", (Trouble.UNSUPPORTED, "it does not answer as an object store does", False)),
    ("Missing", (Trouble.REFUSED, "the credentials in the environment are not whole", False)),
)
"""What obstore says of what has no status, the first that fits."""


def told(said: str, where: str, connect: float) -> Fault | Absent:
    """Give what to raise for what obstore said; `connect` is how many seconds a connection was waited for."""
    if _OWN_ROLE.search(said):
        return Fault(Trouble.REFUSED, where, "the role of this machine, which was asked for, gives no credentials")
    status = _STATUS.search(said)
    if status is None:
        return _of_words(said, where, connect)
    number, code = int(status[1]), _CODE.search(said)
    if code and code[1] in _CODES:
        trouble, text, again = _CODES[code[1]]
        return Fault(trouble, where, text, again=again)
    if number in {404, 410} and not _WRITES.search(said):
        return Absent()
    shown = _shown(number)
    if number == 416:
        return OtherPart(Trouble.BROKEN, where, shown)
    for trouble, numbers in _STATUSES.items():
        if number in numbers:
            return Fault(trouble, where, shown, again=trouble is Trouble.FAILING)
    if number >= 500 and number not in {501, 505}:
        return Fault(Trouble.FAILING, where, shown)
    text = f"{shown}: redirects are not followed" if 300 <= number < 400 else shown
    return Fault(Trouble.UNSUPPORTED, where, text)


def _of_words(said: str, where: str, connect: float) -> Fault:
    if any(words in said for words in _OTHER_PART):
        return OtherPart(Trouble.BROKEN, where, "another part than was asked for")
    for words, (trouble, text, again) in _WORDS:
        if words in said:
            return Fault(trouble, where, text.format(connect=connect), again=again)
    return Fault(Trouble.BROKEN, where, "an answer that makes no sense")


def _shown(number: int) -> str:
    try:
        return f"HTTP {number} {HTTPStatus(number).phrase}"
    except ValueError:
        return f"HTTP {number}"
