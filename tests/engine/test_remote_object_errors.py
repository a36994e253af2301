"""What obstore and object stores say, told in words of our own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata_engine.remote.backend import Fault, Trouble
from strata_engine.remote.object_errors import Absent, OtherPart, told


def answered(status: str, body: str = "", method: str = "GET") -> str:
    url = "https://b.s3.amazonaws.com/p/cas/0?X-Amz-Signature=s1gned"
    return f"Error performing {method} {url} in 1ms - Server returned non-2xx status code: {status}: {body}"


def xml(code: str) -> str:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>s1gned</Message></Error>'


TOLD = {
    "no bucket": (
        answered("404 Not Found", xml("NoSuchBucket")),
        Trouble.UNREACHABLE,
        "there is no such bucket",
        False,
    ),
    "no key to write": (answered("404 Not Found", "", "PUT"), Trouble.UNSUPPORTED, "HTTP 404 Not Found", False),
    "expired": (
        answered("400 Bad Request", xml("ExpiredToken")),
        Trouble.REFUSED,
        "the credentials have expired",
        False,
    ),
    "clock": (
        answered("403 Forbidden", xml("RequestTimeTooSkewed")),
        Trouble.REFUSED,
        "the clock of this machine is wrong",
        False,
    ),
    "quota": (answered("403 Forbidden", xml("QuotaExceeded")), Trouble.FULL, "its quota is used up", False),
    "slow down": (answered("503 Slow Down", xml("SlowDown")), Trouble.FAILING, "it asks for fewer requests", True),
    "unknown code": (answered("403 Forbidden", xml("Hostile")), Trouble.REFUSED, "HTTP 403 Forbidden", False),
    "region": (
        answered("301 Moved Permanently", xml("PermanentRedirect")),
        Trouble.UNSUPPORTED,
        "the bucket is in another region than `AWS_REGION`",
        False,
    ),
    "redirect": (
        answered("307 x"),
        Trouble.UNSUPPORTED,
        "HTTP 307 Temporary Redirect: redirects are not followed",
        False,
    ),
    "odd status": (answered("599 x"), Trouble.FAILING, "HTTP 599", False),
    "own role": (
        "Error performing PUT http://169.254.169.254/latest/api/token in 1s - HTTP error: kind: Connect",
        Trouble.REFUSED,
        "the role of this machine, which was asked for, gives no credentials",
        False,
    ),
    "time-out": (
        "HTTP error: error sending request kind: Timeout",
        Trouble.UNREACHABLE,
        "no connection within 2 s",
        False,
    ),
    "nothing known": ("s1gned", Trouble.BROKEN, "an answer that makes no sense", False),
}


@pytest.mark.parametrize(("said", "trouble", "text", "again"), TOLD.values(), ids=TOLD)
def test_what_was_said_is_told(said: str, trouble: Trouble, text: str, again: bool) -> None:
    fault = told(said, "s3://b", 2.0)
    assert isinstance(fault, Fault)
    assert (fault.trouble, fault.text, fault.again) == (trouble, text, again)


def test_what_is_not_there_is_no_fault_and_another_part_is_one_of_its_own() -> None:
    assert isinstance(told(answered("404 Not Found", xml("NoSuchKey")), "s3://b", 2.0), Absent)
    assert isinstance(told(answered("404 Not Found", "", "HEAD"), "s3://b", 2.0), Absent)
    assert isinstance(told(answered("416 Range Not Satisfiable"), "s3://b", 2.0), OtherPart)
    assert isinstance(told("Received non-partial response when range requested", "s3://b", 2.0), OtherPart)


@given(st.text(), st.integers(100, 999), st.sampled_from(["GET", "PUT", "HEAD", "POST"]))
def test_no_text_of_a_server_is_shown(body: str, status: int, method: str) -> None:
    secret = "s1gned" + body
    fault = told(answered(f"{status} {secret}", secret, method), "s3://b", 2.0)
    assert isinstance(fault, Absent) or "s1gned" not in f"{fault} {fault.diagnostics}"
