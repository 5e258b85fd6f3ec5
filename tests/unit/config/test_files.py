"""Files as people leave them: missing, unreadable, in the wrong format, or full of nonsense."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.config import ConfigError, Problem, load


def refusal(home: Path, file: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(home, file, {})
    return str(caught.value)


def test_a_named_file_that_does_not_exist_is_a_problem(tmp_path: Path) -> None:
    assert refusal(tmp_path, tmp_path / "no.toml") == f"{tmp_path}/no.toml: there is no such file"


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "broker.toml").mkdir()
    assert "cannot be read: Is a directory" in refusal(tmp_path)


def test_two_files_in_one_home_are_refused_because_nobody_could_say_which_one_counts(tmp_path: Path) -> None:
    for name in ("broker.toml", "broker.yaml"):
        (tmp_path / name).touch()
    assert "broker.toml and broker.yaml: keep one, or name it with --config" in refusal(tmp_path)


def test_a_format_that_the_name_does_not_tell_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "broker.conf"
    file.touch()
    assert "call it .toml, .yaml or .yml" in refusal(tmp_path, file)


def test_bytes_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    (tmp_path / "broker.toml").write_bytes(b"# caf\xe9\n")
    assert "is not UTF-8 text: byte 5 is 0xe9" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("broker.toml", "[broker]\nlog_level =\n", 2),
        ("broker.toml", "[bus]\ntcp = ''\ntcp = ''\n", 3),
        ("broker.yaml", "broker:\n  log_level: [\n", 3),
        ("broker.yaml", "broker:\n\tlog_level: info\n", 2),
        ("broker.yaml", "- one\n- two\n", 1),
        ("broker.yaml", "bus:\n  tcp: ''\n  heartbeat_secs: 1\n  tcp: ''\n", 4),
        ("broker.yaml", "bus: !!python/object/apply:os.system [ls]\n", 1),
    ],
)
def test_a_file_that_breaks_its_format_is_refused_with_the_line(
    tmp_path: Path, name: str, text: str, line: int
) -> None:
    (tmp_path / name).write_text(text)
    assert refusal(tmp_path).startswith(f"{tmp_path}/{name}:{line}: ")


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("broker.toml", "\n[ shutdown ] # stop\n  timeout_secs=0\n", 3),
        ("broker.toml", "# x\nshutdown.timeout_secs = 0\n", 2),
        ("broker.toml", '\n"shutdown" = { timeout_secs = 0 }\n', 2),
        ("broker.toml", "[shutdown.watchdog]\nenabled = false\n\n[shutdown]\n'timeout_secs' = 0", 5),
        ("broker.yaml", "\nshutdown:\n\n  timeout_secs: 0\n", 4),
        ("broker.yaml", "shutdown: {force_quit: true,\n  timeout_secs: 0}\n", 2),
        ("broker.yaml", "shutdown: &s\n  timeout_secs: 0\n", 2),
    ],
)
def test_the_line_of_a_setting_is_found_however_it_is_written(tmp_path: Path, name: str, text: str, line: int) -> None:
    (tmp_path / name).write_text(text)
    assert refusal(tmp_path) == f"{tmp_path}/{name}:{line}: shutdown.timeout_secs: must be at least 0.1, got 0"


@pytest.mark.parametrize("value", ["!!int ''", "!!float ''", "!!bool maybe", "!!timestamp soon", "[" * 500])
def test_a_yaml_value_that_breaks_the_parser_is_a_problem_like_any_other(tmp_path: Path, value: str) -> None:
    (tmp_path / "broker.yaml").write_text(f"bus: {value}\n")
    assert "is not YAML" in refusal(tmp_path)


def test_a_yaml_alias_to_its_own_ancestor_ends_in_a_problem_and_not_in_a_hang(tmp_path: Path) -> None:
    (tmp_path / "broker.yaml").write_text("bus: &b\n  inner: *b\n")
    assert "bus.inner: unknown setting" in refusal(tmp_path)


PIECES = st.sampled_from(
    [
        "[shutdown]",
        "shutdown:",
        "timeout_secs",
        "bus",
        "2024-13-45",
        "1e999",
        "0x",
        "3",
        "true",
        "!!int ",
        "!!bool ",
        "!!timestamp ",
        "!!float ",
        "<<",
        "é",
    ]
    + list(".=: \n\t'\"[]{}~>%-")
    + ["&a ", "*a", "- ", "? ", "  "]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(PIECES, max_size=25), suffix=st.sampled_from([".toml", ".yaml"]))
def test_whatever_a_file_holds_the_answer_is_a_configuration_or_its_problems(
    tmp_path: Path, pieces: list[str], suffix: str
) -> None:
    file = tmp_path / f"any{suffix}"
    file.write_text("".join(pieces), encoding="utf-8")
    found: list[Problem] = []
    try:
        load(tmp_path, file, {})
    except ConfigError as error:
        found = error.problems
    assert all(problem.text and problem.source == str(file) for problem in found)
