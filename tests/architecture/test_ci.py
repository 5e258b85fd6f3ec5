"""What CI runs must not pass for the lack of something that is to be tested."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_ci_runs_the_test_command_and_accepts_no_skip(tmp_path: Path) -> None:
    for folder in (".ci", "tools"):
        (tmp_path / folder).mkdir()
    script = tmp_path / ".ci" / "run"
    script.write_bytes((ROOT / ".ci" / "run").read_bytes())
    told = tmp_path / "tools" / "test"
    told.write_text("#!/bin/sh\necho CI is $CI\n")
    for each in (script, told):
        each.chmod(0o755)
    done = subprocess.run([str(script)], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}, timeout=10)
    assert done.stdout == "CI is 1\n"


def test_a_skip_is_a_failure_in_ci(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_bytes((ROOT / "tests" / "conftest.py").read_bytes())
    (tmp_path / "test_it.py").write_text("import pytest\ndef test_it(): pytest.skip('no server')\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    for ci, status in (("", 0), ("1", 1)):
        environ = {"PATH": "/usr/bin:/bin", "CI": ci}
        done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=tmp_path, timeout=30)
        assert done.returncode == status, done.stdout


def test_the_half_written_coverage_of_a_killed_process_does_not_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_bytes((ROOT / "tests" / "conftest.py").read_bytes())
    (tmp_path / "setup.cfg").write_text("[tool:pytest]\nfilterwarnings = error\n[coverage:run]\nparallel = True\n")
    (tmp_path / "measured.py").write_text("ANSWER = 42\n")
    (tmp_path / "test_it.py").write_text("def test_it():\n    import measured\n    assert measured.ANSWER == 42\n")
    for number, torn in enumerate((b"", b"SQLite format 3\0 and no more", b"xyz")):
        (tmp_path / f".coverage.machine.pid{number}.XXaBcDex").write_bytes(torn)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--cov=measured", "--cov-append"]
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=tmp_path, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("CoverageWarning") + done.stdout.count("CoverageWarning") >= 3, done.stdout + done.stderr
