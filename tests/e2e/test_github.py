"""What a build says to GitHub Actions: annotations beside its lines, and the job's summary."""

from __future__ import annotations

from pathlib import Path

from space import Space


def in_job(summary: Path) -> dict[str, str]:
    return {"GITHUB_ACTIONS": "true", "CI": "true", "GITHUB_STEP_SUMMARY": str(summary)}


def test_each_build_of_a_job_adds_to_its_summary(built: Space, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("# made before\n")
    (built.root / "hello.py").write_text("print('edited')\n")
    built.ok("build", env=in_job(summary))
    first = summary.read_text()
    assert first.startswith("# made before\n### ✅ strata build\n")
    assert "| input-changed hello.py |" in first
    assert '["app-hello/link"]:::executed' in first
    stack = built.root / "venvstacks.toml"
    stack.write_text(stack.read_text().replace('launch_module = "hello.py"', 'launch_module = "absent.py"'))
    failed = built.strata("build", env=in_job(summary))
    assert failed.code == 2
    assert "::error title=" in failed.stderr
    assert "file=venvstacks.toml,line=" in failed.stderr
    assert summary.read_text() == first, "what cannot be planned is annotated, and no build"


def test_a_summary_that_cannot_be_written_is_a_warning(built: Space, tmp_path: Path) -> None:
    (built.root / "hello.py").write_text("print('edited')\n")
    ran = built.ok("build", env=in_job(tmp_path / "absent" / "summary.md"))
    assert "warning[no-job-summary]: cannot write the job summary" in ran.stderr


def test_a_summary_names_causes_of_earlier_builds_that_failed(built: Space, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    built.replace("venvstacks.toml", '["zeta"]', '["zeta==9"]')
    assert built.strata("build", env=in_job(summary)).code == 2
    built.replace("venvstacks.toml", '["zeta==9"]', '["zeta", "epsilon"]')
    built.ok("build", env=in_job(summary))
    said = summary.read_text().partition("### ✅")[2].partition("<details>")[0]
    assert "| parameter-changed venvstacks.toml\\#applications.world.requirements |  | epsilon |" in said
    assert "previous-failed" not in said
