"""What docs/remote-cache.md gives to be copied works: the server's rules on a real nginx, policies, helper, recipes."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from caches import NGINX, free_port, make_certificate, needs_nginx, started

from strata_engine.remote.credentials import Credentials
from strata_engine.remote.signing import public_key
from strata_rules.cli.main import strata

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "remote-cache.md").read_text()
KEY = "0" * 64


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


class Guarded:
    """The documented server, with its two credentials."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.authority = folder / "server.pem"

    def ask(self, method: str, path: str, *, login: str = "", headers: str = "Content-Length: 1\r\n") -> int:
        """Make one request over TLS and give the status."""
        if login:
            headers += f"Authorization: Basic {base64.b64encode(login.encode()).decode()}\r\n"
        body = "1\r\nx\r\n0\r\n\r\n" if "chunked" in headers else "x" if "Content-Length" in headers else ""
        context = ssl.create_default_context(cafile=self.authority)
        with (
            socket.create_connection(("127.0.0.1", self.port), 10) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as stream,
        ):
            head = f"{method} {path} HTTP/1.1\r\nHost: cache\r\nConnection: close\r\n{headers}\r\n"
            stream.sendall((head + body).encode())
            return int(stream.makefile("rb").readline().split()[1])

    def doctor(self, zone: str, login: str = "") -> dict[str, Any]:
        """Try it out with the product."""
        environ = {"STRATA_REMOTE_CA": str(self.authority), "STRATA_REMOTE_ZONE": zone, "HOME": str(self.folder)}
        if login:
            environ["STRATA_REMOTE_HEADER"] = f"Authorization: Basic {base64.b64encode(login.encode()).decode()}"
        url = f"https://127.0.0.1:{self.port}/{{zone}}"
        command = [sys.executable, "-m", "strata_rules.entry", "cache", "doctor", "--json", url]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("STRATA_")}
        done = subprocess.run(command, env=clean | environ, capture_output=True, check=False, timeout=120)
        (found,) = json.loads(done.stdout)["caches"]
        assert (done.returncode == 0) == found["usable"]
        return dict(found)


@contextmanager
def guarded(folder: Path, *, change: tuple[str, str] = ("", "")) -> Iterator[Guarded]:
    """Start nginx with the documented file, but for its paths, its port and its user."""
    needs_nginx()
    (config,) = blocks("nginx")
    for name in ("data", "tmp"):
        (folder / name).mkdir(parents=True)
    make_certificate(folder / "server.pem", folder / "server-key.pem")
    (folder / "main.htpasswd").write_text("main:{PLAIN}m41n\n")
    (folder / "pr.htpasswd").write_text("pr:{PLAIN}pr1\n")
    (folder / "all.htpasswd").write_text("main:{PLAIN}m41n\npr:{PLAIN}pr1\nreader:{PLAIN}r\n")
    user = "user root;" if os.geteuid() == 0 else ""
    for old, new in (
        ("user www-data;", user),
        ("worker_processes auto;", "worker_processes 1;"),
        ("/etc/strata-cache", str(folder)),
        ("/var/lib/strata-cache", str(folder)),
        ("/run/strata-cache.pid", f"{folder}/pid"),
        ("/var/log/strata-cache.log", f"{folder}/error.log"),
    ):
        assert old in config
        config = config.replace(old, new)
    config = "daemon off;\n" + re.sub(*change, config) if change[0] else "daemon off;\n" + config
    port = free_port()
    assert "listen 443 ssl;" in config
    (folder / "nginx.conf").write_text(config.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"))
    assert NGINX is not None
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            assert started(process, port), (folder / "error.log").read_text()
            yield Guarded(folder, port)
        finally:
            process.terminate()


def test_the_server_lets_each_credential_write_its_own_zones_and_everybody_read(tmp_path: Path) -> None:
    main, other = "main:m41n", "pr:pr1"
    with guarded(tmp_path / "n") as server:
        for kind in ("ac", "cas"):
            ours, theirs = f"/main/{kind}/{KEY}", f"/pr/17/{kind}/{KEY}"
            assert [server.ask("PUT", ours, login=who) for who in ("", other, "main:wrong")] == [401, 401, 401]
            assert [server.ask("PUT", theirs, login=who) for who in ("", main, "pr:wrong")] == [401, 401, 401]
            assert server.ask("GET", ours, headers="") == 404
            assert server.ask("PUT", ours, login=main) == 201
            assert server.ask("PUT", theirs, login=other) == 201
            for path in (ours, theirs):
                assert [server.ask(method, path, headers="") for method in ("GET", "HEAD")] == [200, 200]
                assert server.ask("DELETE", path, headers="") == 401
                assert server.ask("DELETE", path, login=main if path == ours else other, headers="") == 405
        chunked = "Transfer-Encoding: chunked\r\n"
        assert server.ask("PUT", f"/main/cas/{KEY}", login=main, headers=chunked) == 411
        # None of these is a way around.
        for path, status in (
            (f"/pr/17/../../main/ac/{KEY}", 401), (f"/pr/17/..%2f..%2fmain/ac/{KEY}", 401), (f"/%6dain/ac/{KEY}", 401),
            (f"//main/ac/{KEY}", 401), (f"/pr//main/ac/{KEY}", 404), (f"/cas/{KEY}", 404), (f"/dev/me/cas/{KEY}", 404),
            (f"/pr/a/cas/{KEY}", 404), (f"/MAIN/cas/{KEY}", 404), (f"/main/cas/{KEY}/x", 404), ("/main.htpasswd", 404),
        ):  # fmt: skip
            assert (path, server.ask("PUT", path, login=other)) == (path, status)
        assert sorted(path.name for path in (server.folder / "data").iterdir()) == ["main", "pr"]
        assert sorted(path.parent.name for path in (server.folder / "data" / "main").rglob(KEY)) == ["ac", "cas"]


def test_the_doctor_agrees(tmp_path: Path) -> None:
    with guarded(tmp_path / "n") as server:
        for zone, login, writable in (
            ("main", "main:m41n", True),
            ("pr/17", "pr:pr1", True),
            ("main", "pr:pr1", False),
            ("pr/17", "main:m41n", False),
            ("main", "", False),
        ):
            found = server.doctor(zone, login)
            assert (found["usable"], found["writable"]) == (True, writable)
            assert "trust" not in [finding["check"] for finding in found["findings"]]


def test_reading_can_be_guarded_as_it_says(tmp_path: Path) -> None:
    reads = f'auth_basic "all"; auth_basic_user_file {tmp_path}/n/all.htpasswd; limit_except GET {{'
    with guarded(tmp_path / "n", change=(r"limit_except GET \{", reads)) as server:
        path = f"/main/cas/{KEY}"
        assert server.ask("GET", path, headers="") == 401
        assert server.ask("GET", path, login="reader:r", headers="") == 404
        assert [server.ask("PUT", path, login=who) for who in ("", "reader:r", "pr:pr1")] == [401, 401, 401]
        assert server.ask("PUT", path, login="main:m41n") == 201


def allowed(policy: dict[str, Any], action: str, resource: str) -> bool:
    """Tell what a policy without conditions and denials says."""

    def matches(said: str | list[str], asked: str) -> bool:
        return any(fnmatchcase(asked, each) for each in ([said] if isinstance(said, str) else said))

    return any(
        matches(statement["Action"], action) and matches(statement["Resource"], resource)
        for statement in policy["Statement"]
    )


def test_the_policies_of_a_bucket_let_each_role_write_its_own_zones() -> None:
    main, other, trust, bucket = (json.loads(block) for block in blocks("json"))
    here = "arn:aws:s3:::example-cache/strata/"
    for policy, mine, theirs in ((main, "main/cas/0", "pr/1/cas/0"), (other, "pr/1/cas/0", "main/cas/0")):
        assert allowed(policy, "s3:PutObject", here + mine)
        assert allowed(policy, "s3:GetObject", here + mine)
        assert not allowed(policy, "s3:PutObject", here + theirs)
        assert not allowed(policy, "s3:DeleteObject", here + mine)
    assert allowed(other, "s3:GetObject", here + "main/cas/0")
    assert not allowed(main, "s3:GetObject", here + "pr/1/cas/0")
    (statement,) = trust["Statement"]
    assert statement["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"].endswith("/heads/main")
    assert bucket["Statement"][0]["Effect"] == "Deny"


def test_the_credential_helper_helps(tmp_path: Path) -> None:
    (script,) = blocks("python")
    helper, token = tmp_path / "helper", tmp_path / "cache-token"
    helper.write_text(script.replace("#!/usr/bin/env python3", f"#!{sys.executable}"))
    token.write_text("#!/bin/sh\necho s3cret\n")
    for program in (helper, token):
        program.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    found = Credentials("https://cache.example/x", helper=str(helper), environ=environ)
    assert found("https://cache.example/x/ac/1") == (("Authorization", "Bearer s3cret"),)
    other = Credentials("https://other.example/x", helper=str(helper), environ=environ)
    assert other("https://other.example/x/ac/1") == ()


def test_the_stack_file_is_one() -> None:
    (stack,) = (tomllib.loads(block) for block in blocks("toml"))
    remote = stack["tool"]["strata"]["remote"]
    assert [public_key(text).text for text in remote["public_keys"]] == remote["public_keys"]
    assert set(remote) == {"cache", "trusted", "public_keys"}


def commands(job: dict[str, Any]) -> list[str]:
    """List the lines that a job runs, of either service."""
    lines = [line for part in ("before_script", "script", "after_script") for line in job.get(part, [])]
    return lines + [step["run"] for step in job.get("steps", []) if "run" in step]


RECIPES = [yaml.safe_load(block) for block in blocks("yaml")]
GITHUB, GITLAB = RECIPES
JOBS = [*GITHUB["jobs"].values(), *GITLAB.values()]


def test_the_recipes_build_with_the_one_line() -> None:
    assert [line for job in JOBS for line in commands(job)].count("strata build --locked") == 3
    assert set(GITLAB["merge request"]["rules"][0]["if"].split()) >= {"$CI_PIPELINE_SOURCE"}


@pytest.mark.parametrize("line", sorted({line for job in JOBS for line in commands(job) if line.startswith("strata ")}))
def test_the_commands_of_the_recipes_exist(line: str) -> None:
    _, *words = line.split()
    command: click.Command = strata
    context = click.Context(command)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None
        command = found
    command.make_parser(click.Context(command)).parse_args(words)


def test_the_variables_of_the_recipes_exist() -> None:
    source = "".join(
        path.read_text() for package in ("engine", "rules") for path in sorted((ROOT / package).rglob("*.py"))
    )
    named = {name for block in blocks("yaml") for name in re.findall(r"\bSTRATA_[A-Z_]+\b", block)}
    assert {"STRATA_REMOTE_CACHE", "STRATA_REMOTE_HEADER", "STRATA_SIGNING_KEY"} <= named
    assert [name for name in sorted(named) if f'"{name}"' not in source] == []


def test_no_secret_of_main_is_given_to_pull_requests() -> None:
    environment = GITHUB["jobs"]["build"]["environment"]
    assert environment == "${{ github.event_name == 'push' && 'cache-main' || 'cache-pr' }}"
    assert GITHUB[True] == {"push": {"branches": ["main"]}, "pull_request": None}
    assert "MAIN" not in str(GITLAB["merge request"])
    assert "SIGNING" not in str(GITLAB["merge request"])


@pytest.mark.parametrize(("job", "login"), [("main", "CACHE_MAIN_LOGIN"), ("merge request", "CACHE_PR_LOGIN")])
def test_a_fork_without_a_credential_sends_none(job: str, login: str) -> None:
    exports = [line for line in commands(GITLAB[job]) if line.startswith("export")]
    script = "\n".join([*exports, 'printf %s "$STRATA_REMOTE_HEADER"'])
    for environ, header in (({}, b""), ({login: "eDp5"}, b"Authorization: Basic eDp5")):
        done = subprocess.run(["sh", "-euc", script], env=environ, capture_output=True, check=True)
        assert done.stdout == header
