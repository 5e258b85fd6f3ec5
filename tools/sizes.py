"""Holds the house rules of size: no file over 500 lines, no function over 60, half of the functions under 10.

    python tools/sizes.py [FOLDER ...]

Tests are not measured: a long table of cases is easier to read than a clever one.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

FOLDERS = ("broker", "plugin_sdk", "services", "migrations", "tools")
FILE_LINES = 500
FUNCTION_LINES = 60
FUNCTION_LINES_SOFT = 40
MEDIAN_FUNCTION_LINES = 10


@dataclass(frozen=True)
class Measure:
    """The length of a file or function, and where it is."""

    place: str
    lines: int


def measure(path: Path) -> tuple[Measure, list[Measure]]:
    """The length of a Python file and of every function in it, decorators left out."""
    text = path.read_text(encoding="utf-8")
    functions = [
        Measure(f"{path}:{node.lineno} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(ast.parse(text, str(path)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return Measure(str(path), text.count("\n")), functions


def judge(files: Iterable[Measure], functions: list[Measure]) -> Iterator[str]:
    """Says what breaks a rule, and the way out."""
    for file in files:
        if file.lines > FILE_LINES:
            yield f"{file.place}: {file.lines} lines, the limit is {FILE_LINES}: split it by what changes together"
    for function in functions:
        if function.lines > FUNCTION_LINES:
            yield f"{function.place}: {function.lines} lines, the limit is {FUNCTION_LINES}: name its steps"
    middle = median(function.lines for function in functions) if functions else 0
    if middle >= MEDIAN_FUNCTION_LINES:
        yield f"half of the functions have {middle:g} lines or more, the limit is {MEDIAN_FUNCTION_LINES}"


def main(folders: list[str]) -> int:
    """Measures the folders, prints what breaks a rule and a line of summary; returns the exit code."""
    measured = [measure(path) for folder in folders for path in sorted(Path(folder).rglob("*.py"))]
    files = [file for file, _ in measured]
    functions = [function for _, inside in measured for function in inside]
    complaints = list(judge(files, functions))
    for complaint in complaints:
        print(complaint)
    long = sum(function.lines > FUNCTION_LINES_SOFT for function in functions)
    print(f"{len(files)} files, {len(functions)} functions, {long} of them over {FUNCTION_LINES_SOFT} lines")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(FOLDERS)))
