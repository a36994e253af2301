"""What a build is told of a server of the Remote Execution API: what lets it in, as with one over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest
from caches import make_certificate

from strata_engine.errors import Place, SpecError
from strata_engine.remote.address import GrpcAddress
from strata_engine.remote.settings import Access, Upload
from strata_engine.remote.tls import Tls
from strata_rules.remotes import RemoteWishes, remote_settings
from strata_rules.spec.declared import RemoteSource

CACHE = "STRATA_REMOTE_CACHE"


def test_what_lets_us_in_is_given_to_a_grpc_cache_too(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    make_certificate(certificate, key)
    environ = {
        CACHE: "grpcs://me:s3cret@host/{zone}",
        "STRATA_REMOTE_HEADER": "x-token: t",
        "STRATA_CREDENTIAL_HELPER": "helper",
        "STRATA_CLIENT_CERTIFICATE": str(certificate),
        "STRATA_CLIENT_KEY": str(key),
    }
    [access] = remote_settings(RemoteWishes(), RemoteSource(), environ).caches
    assert access == Access(
        url="grpcs://host/{zone}",
        login=("me", "s3cret"),
        headers=(("x-token", "t"),),
        helper="helper",
        tls=Tls(str(certificate), str(key)),
    )
    assert access.address == GrpcAddress("grpcs://host/{zone}", ("me", "s3cret"))
    assert "s3cret" not in repr(access)
    with pytest.raises(SpecError, match=r"missing\.pem"):
        remote_settings(RemoteWishes(), RemoteSource(), environ | {"STRATA_CLIENT_KEY": str(tmp_path / "missing.pem")})


def test_a_login_of_the_command_line_lets_a_build_write() -> None:
    def upload(url: str) -> Upload:
        return remote_settings(RemoteWishes(caches=(url,)), RemoteSource(), {}).upload

    assert (upload("grpc://me:s3cret@host"), upload("grpc://host")) == (Upload.WAIT, Upload.OFF)


def test_a_login_in_a_stack_file_is_refused() -> None:
    with pytest.raises(SpecError) as error:
        remote_settings(
            RemoteWishes(),
            RemoteSource(cache=("grpcs://me:s3cret@host",)),
            {},
            lambda _: Place("venvstacks.toml", 3),
        )
    [diagnostic] = error.value.diagnostics
    assert diagnostic.id == "login-in-stack-file"
    assert "s3cret" not in str(diagnostic)
