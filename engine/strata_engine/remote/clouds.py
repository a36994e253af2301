"""What the environment says of a cloud, made into the settings of a client for one bucket of it.

It knows the variables that each cloud's own tools read, and no client. Nothing is signed where the environment has
nothing to sign with, so that everybody may read a public bucket; the role of a machine, which only asking an address
of its own network would tell of, is asked for by `AWS_SKIP_SIGNATURE=false` and its like. Plain HTTP is spoken with an
endpoint alone that is written `http://`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_S3 = [
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_METADATA_ENDPOINT", "AWS_STS_ENDPOINT", "AWS_SKIP_SIGNATURE",
    "AWS_REQUEST_PAYER", "AWS_CHECKSUM_ALGORITHM", "AWS_UNSIGNED_PAYLOAD", "AWS_SERVER_SIDE_ENCRYPTION",
    "AWS_SSE_KMS_KEY_ID", "AWS_SSE_BUCKET_KEY_ENABLED", "AWS_S3_EXPRESS",
]  # fmt: skip
_S3_SIGNS = {
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
}
_GOOGLE = [
    "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_BEARER_TOKEN", "GOOGLE_BASE_URL", "GOOGLE_SKIP_SIGNATURE",
]  # fmt: skip
_GOOGLE_SIGNS = set(_GOOGLE) - {"GOOGLE_BASE_URL", "GOOGLE_SKIP_SIGNATURE"}
_GOOGLE_LOGIN = ".config/gcloud/application_default_credentials.json"
_AZURE = [
    "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_TOKEN", "AZURE_STORAGE_CLIENT_ID",
    "AZURE_CLIENT_ID", "AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET", "AZURE_STORAGE_TENANT_ID",
    "AZURE_TENANT_ID", "AZURE_AUTHORITY_HOST", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT", "AZURE_STORAGE_USE_EMULATOR", "AZURE_USE_AZURE_CLI", "AZURE_MSI_ENDPOINT",
    "AZURE_IDENTITY_ENDPOINT", "AZURE_SKIP_SIGNATURE",
]  # fmt: skip
_AZURE_SIGNS = {
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_TOKEN",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_STORAGE_USE_EMULATOR",
    "AZURE_USE_AZURE_CLI",
    "AZURE_MSI_ENDPOINT",
    "AZURE_IDENTITY_ENDPOINT",
}
_AZURE_TOOL = {
    "AZURE_STORAGE_ACCOUNT": "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_KEY": "AZURE_STORAGE_ACCOUNT_KEY",
}
"""What Azure's own tool calls what its libraries call something else."""
_AZURE_STRING = {
    "accountname": "AZURE_STORAGE_ACCOUNT_NAME",
    "accountkey": "AZURE_STORAGE_ACCOUNT_KEY",
    "sharedaccesssignature": "AZURE_STORAGE_SAS_TOKEN",
    "blobendpoint": "AZURE_STORAGE_ENDPOINT",
}
"""The parts of a connection string."""
_SKIPS = {"s3": "AWS_SKIP_SIGNATURE", "gs": "GOOGLE_SKIP_SIGNATURE", "az": "AZURE_SKIP_SIGNATURE"}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "GOOGLE_BASE_URL", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
_AUTHORITIES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE")


class Settings(NamedTuple):
    """How a client for a bucket is made. No `repr` shows what it signs with."""

    config: Mapping[str, str]
    """Names are those of environment variables, in lower case."""
    plain_http: bool
    authorities: str
    """The file with certificates to trust besides the system's, where the environment names one."""

    def __repr__(self) -> str:
        return f"Settings(signed={self.signed})"

    @property
    def signed(self) -> bool:
        """Whether requests carry proof of who makes them."""
        return not any(self.config.get(name.lower(), "").lower() in _TRUE for name in _SKIPS.values())


_TRUE = {"1", "true", "on", "yes", "y"}


def settings_of(scheme: str, environ: Mapping[str, str]) -> Settings:
    """Read the settings for buckets of `s3`, `gs` or `az`. Raises ValueError, which shows no secret."""
    match scheme:
        case "s3":
            found, signs = _chosen(_S3, environ), _S3_SIGNS
        case "gs":
            found, signs = _chosen(_GOOGLE, environ), _GOOGLE_SIGNS
        case "az":
            found, signs = _azure(environ), _AZURE_SIGNS
        case _:
            raise ValueError(f"no cloud is called {scheme!r}")
    may_sign = bool(found.keys() & signs) or (scheme == "gs" and _has_google_login(environ))
    if not may_sign and _SKIPS[scheme] not in found:
        found[_SKIPS[scheme]] = "true"
    endpoint = next((found[name] for name in _ENDPOINTS if name in found), "")
    emulated = found.get("AZURE_STORAGE_USE_EMULATOR", "").lower() in _TRUE
    authorities = next((environ[name] for name in _AUTHORITIES if environ.get(name)), "")
    config = {name.lower(): value for name, value in found.items()}
    return Settings(config, endpoint.lower().startswith("http://") or emulated, authorities)


def _chosen(names: list[str], environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ[name] for name in names if environ.get(name)}


def _azure(environ: Mapping[str, str]) -> dict[str, str]:
    found = {_AZURE_TOOL[name]: environ[name] for name in _AZURE_TOOL if environ.get(name)}
    for part in environ.get("AZURE_STORAGE_CONNECTION_STRING", "").split(";"):
        name, _, value = part.partition("=")
        if value and name.strip().lower() in _AZURE_STRING:
            found[_AZURE_STRING[name.strip().lower()]] = value.strip()
    found |= _chosen(_AZURE, environ)
    if "AZURE_STORAGE_ACCOUNT_NAME" not in found and "AZURE_STORAGE_USE_EMULATOR" not in found:
        raise ValueError("`AZURE_STORAGE_ACCOUNT` says in which account the container is")
    return found


def _has_google_login(environ: Mapping[str, str]) -> bool:
    """Tell whether somebody has logged in with Google's own tool, in which case the client finds it there."""
    home = environ.get("HOME")
    return bool(home) and (Path(home or "") / _GOOGLE_LOGIN).is_file()
