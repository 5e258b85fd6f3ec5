"""docs/requirements.md says which test shows each requirement; here it is held to that."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CATALOGUE = ROOT / "docs" / "requirements.md"

ID = re.compile(r"\b(?:BUS|PLG|PKG|SEC|SHD|OPS|OBS)-\d+\b")
TEST = re.compile(r"\b(tests/[\w./-]+?\.py)(?:::(\w+))?")


@pytest.fixture
def catalogue() -> str:
    return CATALOGUE.read_text(encoding="utf-8")


def test_every_test_that_the_catalogue_names_exists(catalogue: str) -> None:
    named = TEST.findall(catalogue)
    assert named, "the catalogue names no test"
    missing = [f"{path}::{test}" if test else path for path, test in named if not exists(path, test)]
    assert not missing


def exists(path: str, test: str) -> bool:
    file = ROOT / path
    if not file.is_file():
        return False
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return not test or any(isinstance(node, functions) and node.name == test for node in ast.walk(tree))


def test_no_requirement_stands_in_the_catalogue_twice(catalogue: str) -> None:
    rows = [line for line in catalogue.splitlines() if line.startswith("|")]
    ids = [match[0] for row in rows if (match := ID.search(row.split("|")[1]))]
    assert ids
    assert len(ids) == len(set(ids))
