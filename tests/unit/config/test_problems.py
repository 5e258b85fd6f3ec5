"""What a person is told about a configuration that cannot be used."""

from pathlib import Path

import pytest

from broker.config import ConfigError, Problem, load


def problems(
    home: Path, text: str = "", environ: dict[str, str] | None = None, name: str = "broker.toml"
) -> list[Problem]:
    (home / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(home, None, environ or {})
    return caught.value.problems


def test_every_problem_of_every_source_is_reported_at_once_with_its_place(tmp_path: Path) -> None:
    text = """[shutdown]
timeout_secs = "soon"
force_delay_secs = 0

[shutdwn]
force_quit = true

[bus]
max_frame_bytes = 1.5
"""
    environ = {"BROKER_BUS_HEARTBEAT_SECS": "often", "BROKER_SHUTDOWN_TIMEOUT": "3"}
    found = problems(tmp_path, text, environ)
    file = str(tmp_path / "broker.toml")
    assert [(p.setting, p.source, p.line) for p in found] == [
        ("", "environment", None),
        ("bus.heartbeat_secs", "environment BROKER_BUS_HEARTBEAT_SECS", None),
        ("shutdown.timeout_secs", file, 2),
        ("shutdown.force_delay_secs", file, 3),
        ("shutdwn", file, 5),
        ("bus.max_frame_bytes", file, 9),
    ]
    assert str(found[2]) == f"{file}:2: shutdown.timeout_secs: expects a number, got 'soon'"


def test_problems_of_the_environment_are_told_even_when_the_file_cannot_be_read(tmp_path: Path) -> None:
    file_problem, environment_problem = problems(tmp_path, "[shutdown\n", {"BROKER_BUS_TCP": "here"})
    assert "is not TOML" in file_problem.text
    assert environment_problem.setting == "bus.tcp"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("shutdown.timeout_secs = '30'", "expects a number, got '30'"),
        ("shutdown.timeout_secs = true", "expects a number, got true"),
        ("shutdown.timeout_secs = nan", "expects a number, got nan"),
        ("shutdown.timeout_secs = -1", "must be at least 0.1, got -1"),
        ("shutdown.timeout_secs = 3601", "must be at most 3600, got 3601"),
        ("shutdown.force_quit = 1", "expects true or false, got 1"),
        ("shutdown = 3", "expects a section of settings, got 3"),
        ("broker.log_level = 'loud'", "expects one of 'debug', 'info', 'warning' or 'error', got 'loud'"),
        ("broker.node = 'a b'", "letters, digits"),
        ('broker.node = "a\\n"', "letters, digits"),
        ("plugin_manager.max_concurrency = 0", "must be at least 1, got 0"),
        ("plugin_manager.plugin_dir = 3", "expects a path in quotes, got 3"),
        ("plugin_manager.plugin_dir = '~nobody-of-that-name/x'", "cannot expand '~nobody-of-that-name/x'"),
        ("bus.max_frame_bytes = 300000000", "must be at most 268435456, got 300000000"),
        ("bus.max_frame_bytes = true", "expects a whole number, got true"),
        ("bus.tcp = 'tcp://localhost:7777'", "with an IP address"),
        ("bus.tcp = 'tcp://127.0.0.1:70000'", "got 'tcp://127.0.0.1:70000'"),
        ("database.url = 3", "expects a text in quotes, got '***'"),
        ("database.url = 'sqlite://'", "expects sqlite:///FILE"),
        ("database.url = 'sqlite:///:memory:'", "must outlive the broker"),
        ("database.url = 'mysql+pymysql://root@localhost'", "expects sqlite:///FILE or mysql+pymysql://"),
        ("database.url = 'postgresql://a/b'", "got 'postgresql://a/b'"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(tmp_path: Path, line: str, text: str) -> None:
    (problem,) = problems(tmp_path, line)
    assert text in problem.text
    assert problem.setting == line.partition(" ")[0]
    assert problem.line == 1


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("shutdown.timeout_sec = 3", "did you mean shutdown.timeout_secs?"),
        ("bus.log_level = 'info'", "did you mean broker.log_level?"),
        ("log_level = 'info'", "did you mean broker.log_level?"),
        ("plugin_manger = {}", "did you mean plugin_manager?"),
        ("shutdown.watchdg = {}", "did you mean shutdown.watchdog?"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_name_that_was_meant(tmp_path: Path, line: str, hint: str) -> None:
    (problem,) = problems(tmp_path, line)
    assert problem.text == f"unknown setting; {hint}"


def test_an_unknown_setting_that_resembles_none_gets_no_guess(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "zebra = 1")
    assert problem.text.startswith("unknown setting; there are broker, bus, ")


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("BROKER_LOG_LEVEL", "BROKER_LOG_LEVEL is no setting; did you mean BROKER_BROKER_LOG_LEVEL?"),
        (
            "BROKER_SHUTDWN_TIMEOUT_SECS",
            "BROKER_SHUTDWN_TIMEOUT_SECS is no setting; did you mean BROKER_SHUTDOWN_TIMEOUT_SECS?",
        ),
        ("BROKER_BUS_COLOUR", "BROKER_BUS_COLOUR is no setting"),
    ],
)
def test_a_variable_that_looks_like_a_setting_and_is_none_is_refused(tmp_path: Path, variable: str, text: str) -> None:
    (problem,) = problems(tmp_path, "", {variable: "1"})
    assert problem.text == text


@pytest.mark.parametrize(
    ("line", "feature"),
    [
        ("plugin_manager.enable_metrics = true", "the metrics endpoint"),
        ("plugin_manager.enable_hot_reload = true", "reloading of changed plugins"),
    ],
)
def test_switching_on_what_this_version_cannot_do_is_refused(tmp_path: Path, line: str, feature: str) -> None:
    (problem,) = problems(tmp_path, line)
    assert problem.text.startswith(f"not available in this version: {feature}")


def test_the_same_settings_may_stand_there_switched_off(tmp_path: Path) -> None:
    (tmp_path / "broker.toml").write_text(
        "[plugin_manager]\nenable_sandbox = false\nmax_memory = 0\nmax_cpu = 0\nenable_metrics = false\n"
        "metrics_port = 9100\nenable_hot_reload = false\nwatch_interval = 2\n[shutdown.watchdog]\nenabled = false\n"
    )
    assert load(tmp_path, None, {}).plugin_manager.metrics_port == 9100


def test_a_socket_path_that_no_unix_socket_takes_is_refused_with_the_way_out(tmp_path: Path) -> None:
    home = tmp_path / ("h" * 120)
    with pytest.raises(ConfigError, match=r"at most 107: use a shorter home, or set bus.socket"):
        load(home, None, {})
    assert load(home, None, {"BROKER_BUS_SOCKET": "/run/b.sock"}).bus.socket == Path("/run/b.sock")


@pytest.mark.parametrize("variable", ["BROKER_PLUGIN_MANAGER_TIMEOUT", "BROKER_SHUTDOWN_TIMEOUT_SECS"])
def test_an_inner_time_limit_that_outlasts_the_outer_one_is_a_warning(tmp_path: Path, variable: str) -> None:
    value = "40" if variable.endswith("TIMEOUT") else "5"
    (warning,) = load(tmp_path, None, {variable: value}).warnings
    assert warning.setting == "plugin_manager.timeout"
    assert warning.source == f"environment {variable}"
    assert "shutdown.timeout_secs" in warning.text


@pytest.mark.parametrize(("interval", "warned"), [(15, False), (20, True)])
def test_a_watchdog_that_is_fed_too_seldom_is_warned_of(tmp_path: Path, interval: float, warned: bool) -> None:
    text = f"[shutdown.watchdog]\nenabled = true\ntimeout_secs = 30\ninterval_secs = {interval}\n"
    (tmp_path / "broker.toml").write_text(text)
    warnings = load(tmp_path, None, {}).warnings
    assert ["half of it is used" in warning.text for warning in warnings] == [True] * warned


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[shutdown]\ntimeout = 3", "did you mean shutdown.timeout_secs?"),
        ("[shutdown.watchdog]\ntimeout = 3", "did you mean shutdown.watchdog.timeout_secs?"),
        ("[plugin_manager]\ntimeout_secs = 3", "did you mean plugin_manager.timeout?"),
        ("[bus]\nhartbeat = 1", "did you mean bus.heartbeat_secs?"),
        ("[broker]\nheartbeat_secs = 2", "did you mean bus.heartbeat_secs?"),
        ("[bus]\nport = 3", "there are socket, tcp, "),
        ("[plugins]\ndir = 'x'", "there are broker, bus, plugin_manager, "),
    ],
)
def test_a_misspelt_setting_is_answered_with_what_its_section_has(tmp_path: Path, text: str, hint: str) -> None:
    assert problems(tmp_path, text)[0].text.startswith(f"unknown setting; {hint}")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("BROKER_SHUTDOWN_TIMEOUT", "; did you mean BROKER_SHUTDOWN_TIMEOUT_SECS?"),
        ("BROKER_PLUGIN_DIR", "; did you mean BROKER_PLUGIN_MANAGER_PLUGIN_DIR?"),
        (
            "BROKER_BROKER",
            " but a section of them: BROKER_BROKER_NODE, BROKER_BROKER_LOG_LEVEL, BROKER_BROKER_LOG_FORMAT",
        ),
    ],
)
def test_a_misspelt_variable_is_never_answered_with_itself(tmp_path: Path, name: str, hint: str) -> None:
    assert problems(tmp_path, environ={name: "1"})[0].text == f"{name} is no setting{hint}"
