"""The size check of the gate lets nothing pass that the house rules forbid."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def check(*folders: Path | str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/sizes.py", *map(str, folders)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def function(lines: int) -> str:
    return "def f():\n" + "    x = 1\n" * (lines - 1)


def test_the_tree_keeps_the_rules() -> None:
    answer = check()
    assert answer.returncode == 0, answer.stdout


def test_a_function_of_61_lines_fails_and_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text(function(3) + function(61) + function(3))
    answer = check(tmp_path)
    assert answer.returncode == 1
    assert f"{tmp_path}/long.py:4 f: 61 lines, the limit is 60" in answer.stdout


def test_a_function_of_60_lines_passes_and_is_counted_as_long(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text(function(3) + function(60) + function(3))
    answer = check(tmp_path)
    assert (answer.returncode, answer.stdout) == (0, "1 files, 3 functions, 1 of them over 40 lines\n")


def test_methods_and_coroutines_are_measured_too(tmp_path: Path) -> None:
    body = "        x = 1\n" * 60
    (tmp_path / "long.py").write_text(f"class C:\n    async def m(self):\n{body}{function(3)}{function(3)}")
    assert "long.py:2 m: 61 lines" in check(tmp_path).stdout


def test_a_file_of_501_lines_fails(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text("x = 1\n" * 501)
    answer = check(tmp_path)
    assert answer.returncode == 1
    assert "long.py: 501 lines, the limit is 500" in answer.stdout


def test_a_tree_whose_usual_function_is_long_fails(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text(function(12) * 3)
    assert "half of the functions have 12 lines or more" in check(tmp_path).stdout
