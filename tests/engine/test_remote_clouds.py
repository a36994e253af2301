"""What the environment says of a cloud: what is signed with, what is left unsigned, and what is spoken without TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata_engine.remote.clouds import settings_of

KEYS = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s3cret"}

SIGNED = {
    "nothing": ("s3", {}, False),
    "keys": ("s3", KEYS, True),
    "keys that are not to be used": ("s3", KEYS | {"AWS_SKIP_SIGNATURE": "true"}, False),
    "the role of the machine": ("s3", {"AWS_SKIP_SIGNATURE": "false"}, True),
    "a web identity": ("s3", {"AWS_WEB_IDENTITY_TOKEN_FILE": "/t", "AWS_ROLE_ARN": "arn:r"}, True),
    "a container": ("s3", {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2"}, True),
    "the keys of another cloud": ("gs", KEYS, False),
    "a region alone": ("s3", {"AWS_REGION": "eu-west-1"}, False),
    "a variable that is empty": ("s3", {"AWS_ACCESS_KEY_ID": ""}, False),
    "a service account": ("gs", {"GOOGLE_APPLICATION_CREDENTIALS": "/key.json"}, True),
    "a token": ("gs", {"GOOGLE_BEARER_TOKEN": "t0ken"}, True),
    "an account": ("az", {"AZURE_STORAGE_ACCOUNT": "a"}, False),
    "an account and its key": ("az", {"AZURE_STORAGE_ACCOUNT": "a", "AZURE_STORAGE_KEY": "s3cret"}, True),
    "an account's name and a SAS": ("az", {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_SAS_TOKEN": "sig"}, True),
    "a connection string": ("az", {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;AccountKey=s3cret=="}, True),
}


@pytest.mark.parametrize(("scheme", "environ", "signed"), SIGNED.values(), ids=SIGNED)
def test_requests_are_signed_where_there_is_something_to_sign_with(
    scheme: str, environ: dict[str, str], signed: bool
) -> None:
    settings = settings_of(scheme, environ)
    assert settings.signed is signed
    assert not any(secret in f"{settings} {settings!r}" for secret in ("s3cret", "AKIA", "t0ken", "sig="))


def test_who_has_logged_in_with_googles_own_tool_is_known(tmp_path: Path) -> None:
    assert not settings_of("gs", {"HOME": str(tmp_path)}).signed
    login = tmp_path / ".config/gcloud/application_default_credentials.json"
    login.parent.mkdir(parents=True)
    login.write_text("{}")
    assert settings_of("gs", {"HOME": str(tmp_path)}).signed


PLAIN = {
    "no endpoint": ("s3", {}, False),
    "https": ("s3", {"AWS_ENDPOINT_URL": "https://minio.example"}, False),
    "http": ("s3", {"AWS_ENDPOINT_URL": "http://minio.example:9000"}, True),
    "the one for this service": (
        "s3",
        {"AWS_ENDPOINT_URL": "http://other", "AWS_ENDPOINT_URL_S3": "https://minio.example"},
        False,
    ),
    "another cloud's": ("gs", {"AWS_ENDPOINT_URL": "http://minio.example"}, False),
    "a blob endpoint": (
        "az",
        {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;BlobEndpoint=http://127.0.0.1:10000/a"},
        True,
    ),
    "an emulator": ("az", {"AZURE_STORAGE_USE_EMULATOR": "true"}, True),
}


@pytest.mark.parametrize(("scheme", "environ", "plain"), PLAIN.values(), ids=PLAIN)
def test_plain_http_is_spoken_with_who_was_asked_for_it(scheme: str, environ: dict[str, str], plain: bool) -> None:
    assert settings_of(scheme, environ).plain_http is plain


def test_a_connection_string_is_taken_apart_and_what_is_said_beside_it_wins() -> None:
    string = "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=k==;EndpointSuffix=core.windows.net; ;x"
    environ = {"AZURE_STORAGE_CONNECTION_STRING": string, "AZURE_STORAGE_ACCOUNT_NAME": "b"}
    assert settings_of("az", environ).config == {"azure_storage_account_name": "b", "azure_storage_account_key": "k=="}


def test_certificates_are_those_that_other_tools_trust() -> None:
    environ = {"SSL_CERT_FILE": "/a.pem", "AWS_CA_BUNDLE": "/b.pem"}
    assert settings_of("s3", environ).authorities == "/b.pem"
    assert settings_of("gs", {"SSL_CERT_FILE": "/a.pem"}).authorities == "/a.pem"


def test_a_cloud_that_is_none_and_an_account_that_is_not_said() -> None:
    with pytest.raises(ValueError, match="no cloud"):
        settings_of("ftp", {})
    with pytest.raises(ValueError, match="in which account"):
        settings_of("az", {"AZURE_STORAGE_KEY": "s3cret"})
