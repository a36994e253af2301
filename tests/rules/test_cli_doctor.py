"""`strata cache doctor` on real servers: its text, its document, its exit codes, and that it shows no secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from caches import Hostile, nginx

OURS = ("STRATA_", "NETRC", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def doctor(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return subprocess.run(
        [sys.executable, "-m", "strata_rules.entry", "cache", "doctor", *arguments],
        cwd=cwd,
        env=clean | {"HOME": str(cwd), "PYTHONUTF8": "1", "STRATA_CACHE_DIR": str(cwd / "store")} | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def caches(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(done.stdout)["caches"]
    return found


def test_a_good_cache_is_said_on_one_screen(tmp_path: Path) -> None:
    with nginx(tmp_path / "n") as server:
        done = doctor(server.url, cwd=tmp_path)
        lines = done.stdout.splitlines()
        assert (done.returncode, done.stderr) == (0, "")
        assert lines[0] == f"{server.url}  usable, reads and writes"
        assert lines[1] == "  ok    reach        it answers, over HTTP"
        assert lines[-1].endswith(" MB of random bytes stay there, under names that nothing else uses")
        assert len(lines) <= 24
        assert max(map(len, lines)) <= 120


def test_the_document(tmp_path: Path) -> None:
    with nginx(tmp_path / "n") as server:
        done = doctor(server.url, "--no-write", "--json", cwd=tmp_path)
        document = json.loads(done.stdout)
        (cache,) = document.pop("caches")
        assert document == {"schema": "strata.cache-doctor", "version": 1, "usable": True, "zone": "main"}
        findings = cache.pop("findings")
        assert cache.pop("latency") > 0
        assert cache == {
            "url": server.url,
            "usable": True,
            "writable": None,
            "read_speed": None,
            "write_speed": None,
            "left": 0,
        }
        assert findings[0] == {"check": "reach", "state": "ok", "text": "it answers, over HTTP", "hint": ""}
        assert [finding["check"] for finding in findings] == [
            "reach", "auth", "zones", "read", "latency", "write", "digests", "limits", "compression", "clock",
        ]  # fmt: skip
        assert {finding["state"] for finding in findings} <= {"ok", "note", "warn", "fail", "skipped"}


def test_one_of_several_that_cannot_be_used(tmp_path: Path) -> None:
    with Hostile() as server:
        down = server.url
    shared = tmp_path / "shared"
    shared.mkdir()
    done = doctor("--no-write", cwd=tmp_path, STRATA_REMOTE_CACHE=f"{shared.as_uri()},\n {down}")
    assert done.returncode == 3
    assert f"{shared.as_uri()}  usable, reads\n" in done.stdout
    assert f"\n\n{down}  not usable\n  fail  reach        not reachable: Connection refused\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "id"),
    [
        ((), "no-remote-cache"),
        (("ftp://me:s3cret@host/",), "bad-remote-url"),
        (("https://host/?a=s3cret",), "bad-remote-url"),
        (("https://host/", "--remote-zone", "../main"), "usage"),
        (("https://host/", "--remote-timeout", "0"), "usage"),
        (("https://host/", "--client-key", "key.pem"), "bad-client-certificate"),
        (("https://host/", "--remote-ca", "none.pem"), "bad-client-certificate"),
    ],
)
def test_what_is_wrong_with_the_command_line(tmp_path: Path, arguments: tuple[str, ...], id: str) -> None:
    done = doctor(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error[{id}]: ")
    assert "s3cret" not in done.stderr


def test_a_header_that_is_none_is_not_shown(tmp_path: Path) -> None:
    done = doctor("https://host/", cwd=tmp_path, STRATA_REMOTE_HEADER="s3cret")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error[bad-remote-header]: ")
    assert "s3cret" not in done.stderr


def helper(folder: Path) -> Path:
    path = folder / "helper"
    path.write_text('#!/bin/sh\ncat >/dev/null\necho \'{"headers": {"Authorization": ["Basic Y2k6czNjcmV0"]}}\'\n')
    path.chmod(0o755)
    return path


def test_every_way_in_is_used_named_and_not_shown(tmp_path: Path) -> None:
    with nginx(tmp_path / "n", login="ci:s3cret") as server:
        port = server.port
        program = str(helper(tmp_path))
        basic = "Authorization: Basic Y2k6czNjcmV0"
        (tmp_path / ".netrc").write_text("machine localhost login ci password s3cret\n")
        ways: list[tuple[tuple[str, ...], dict[str, str], str]] = [
            ((server.url,), {"STRATA_REMOTE_HEADER": basic}, "let in with `STRATA_REMOTE_HEADER`"),
            ((server.url.replace("//", "//ci:s3cret@"),), {}, "let in with the login of its URL"),
            ((server.url, "--credential-helper", program), {}, "let in with the credential helper `helper`"),
            ((server.url,), {"STRATA_CREDENTIAL_HELPER": program}, "let in with the credential helper `helper`"),
            ((f"http://localhost:{port}",), {}, "let in with the login of netrc"),
            ((server.url,), {}, "reads need no credential, and none was given"),
        ]  # fmt: skip
        for arguments, environ, text in ways:
            done = doctor(*arguments, "--json", cwd=tmp_path, **environ)
            (cache,) = caches(done)
            assert done.returncode == 0
            assert cache["writable"] is text.startswith("let in")
            assert next(finding["text"] for finding in cache["findings"] if finding["check"] == "auth") == text
            assert "s3cret" not in done.stdout + done.stderr
            assert "czNjcmV0" not in done.stdout + done.stderr


def test_a_client_certificate(tmp_path: Path) -> None:
    with nginx(tmp_path / "n", tls=True, clients=True) as server:
        files = ("--client-certificate", str(server.client), "--client-key", str(server.client_key))
        done = doctor(server.url, *files, "--remote-ca", str(server.certificate), cwd=tmp_path)
        assert done.returncode == 0
        assert "  ok    auth         let in with the client certificate\n" in done.stdout
        environ = {
            "STRATA_CLIENT_CERTIFICATE": str(server.client),
            "STRATA_CLIENT_KEY": str(server.client_key),
            "STRATA_REMOTE_CA": str(server.certificate),
        }
        assert doctor("--no-write", cwd=tmp_path, STRATA_REMOTE_CACHE=server.url, **environ).returncode == 0
        without = doctor(server.url, "--remote-ca", str(server.certificate), cwd=tmp_path)
        assert without.returncode == 3
        assert "HTTP 400 Bad Request" in without.stdout
