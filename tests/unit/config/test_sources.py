"""Where a setting may be said, and who wins."""

from collections.abc import Callable
from pathlib import Path

import pytest

from broker.config import Config, load

TOML = """
[shutdown]
timeout_secs = 20
force_quit = false

[broker]
log_level = "debug"
"""
YAML = """
shutdown:
  timeout_secs: 20
  force_quit: no
broker:
  log_level: debug
"""


def test_an_empty_home_gives_the_default_layout(tmp_path: Path) -> None:
    config = load(tmp_path, None, {})
    assert config.bus.socket == tmp_path / "run" / "broker.sock"
    assert config.plugin_manager.plugin_dir == tmp_path / "plugins"
    assert config.plugin_manager.config_dir == tmp_path / "config"
    assert config.plugin_manager.data_dir == tmp_path / "data"
    assert config.database.url.get_secret_value() == f"sqlite:///{tmp_path}/broker.db"
    assert config.shutdown.timeout_secs == 30
    assert config.shutdown.force_quit is True
    assert config.shutdown.force_delay_secs == 10
    assert config.file is None
    assert config.warnings == ()


@pytest.mark.parametrize(("name", "text"), [("broker.toml", TOML), ("broker.yaml", YAML), ("broker.yml", YAML)])
def test_the_file_in_the_home_is_found_and_both_formats_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    config = load(tmp_path, None, {})
    assert config.shutdown.timeout_secs == 20
    assert config.shutdown.force_quit is False
    assert config.broker.log_level == "debug"
    assert config.file == tmp_path / name


def test_a_named_file_is_read_instead_of_the_one_in_the_home(tmp_path: Path) -> None:
    (tmp_path / "broker.toml").write_text(TOML)
    other = tmp_path / "other.yaml"
    other.write_text("shutdown: {timeout_secs: 7}")
    config = load(tmp_path, other, {})
    assert config.shutdown.timeout_secs == 7
    assert config.broker.log_level == "info"


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "shutdown: {}\n", "shutdown:\n  watchdog:\n"])
def test_a_file_without_settings_changes_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "broker.yaml").write_text(text)
    assert load(tmp_path, None, {}).shutdown == load(tmp_path / "elsewhere", None, {}).shutdown


def test_the_environment_wins_over_the_file_and_options_over_both(tmp_path: Path) -> None:
    (tmp_path / "broker.toml").write_text(TOML)
    environ = {"BROKER_SHUTDOWN_TIMEOUT_SECS": "60", "BROKER_BROKER_LOG_LEVEL": "WARNING"}
    config = load(tmp_path, None, environ, {"broker.log_level": "error"})
    assert config.shutdown.timeout_secs == 60
    assert config.broker.log_level == "error"
    assert config.shutdown.force_quit is False


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [
        ("BROKER_SHUTDOWN_FORCE_QUIT", "off", lambda c: c.shutdown.force_quit is False),
        ("BROKER_SHUTDOWN_FORCE_QUIT", "1", lambda c: c.shutdown.force_quit is True),
        ("BROKER_BUS_HEARTBEAT_SECS", "0.5", lambda c: c.bus.heartbeat_secs == 0.5),
        ("BROKER_PLUGIN_MANAGER_MAX_CONCURRENCY", "3", lambda c: c.plugin_manager.max_concurrency == 3),
        ("BROKER_PLUGIN_MANAGER_PLUGIN_DIR", "/srv/p", lambda c: c.plugin_manager.plugin_dir == Path("/srv/p")),
        ("BROKER_BUS_TCP", "tcp://[::1]:7777", lambda c: c.bus.tcp == "tcp://[::1]:7777"),
        ("BROKER_SHUTDOWN_WATCHDOG_INTERVAL_SECS", "3", lambda c: c.shutdown.watchdog.interval_secs == 3),
    ],
)
def test_every_kind_of_setting_can_come_from_the_environment(
    tmp_path: Path, variable: str, value: str, read: Callable[[Config], bool]
) -> None:
    assert read(load(tmp_path, None, {variable: value}))


def test_the_variables_of_clients_and_plugins_are_no_settings_and_no_problem(tmp_path: Path) -> None:
    names = ("HOME", "ENDPOINT", "TOKEN", "PLUGIN", "DATA_DIR", "GENERATION")
    config = load(tmp_path, None, {f"BROKER_{name}": "x" for name in names})
    assert config.plugin_manager.data_dir == tmp_path / "data"


def test_variables_that_a_container_platform_sets_for_a_service_called_broker_are_ignored(tmp_path: Path) -> None:
    platform = ("PORT", "SERVICE_HOST", "SERVICE_PORT", "PORT_7777_TCP", "PORT_7777_TCP_ADDR")
    load(tmp_path, None, {f"BROKER_{name}": "10.0.0.1" for name in platform})


def test_relative_paths_start_at_the_home_wherever_they_were_said(tmp_path: Path) -> None:
    (tmp_path / "broker.toml").write_text("[plugin_manager]\nplugin_dir = 'mine'\n")
    config = load(tmp_path, None, {"BROKER_DATABASE_URL": "sqlite:///state/b.db?timeout=5", "BROKER_BUS_SOCKET": "s"})
    assert config.plugin_manager.plugin_dir == tmp_path / "mine"
    assert config.bus.socket == tmp_path / "s"
    assert config.database.url.get_secret_value() == f"sqlite:///{tmp_path}/state/b.db?timeout=5"


def test_a_tilde_is_the_home_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    config = load(tmp_path, None, {"BROKER_PLUGIN_MANAGER_PLUGIN_DIR": "~/plugins"})
    assert config.plugin_manager.plugin_dir == Path("/home/someone/plugins")


def test_nothing_of_a_configuration_can_be_changed(tmp_path: Path) -> None:
    config = load(tmp_path, None, {})
    with pytest.raises(AttributeError, match="immutable"):
        config.shutdown.timeout_secs = 1  # type: ignore[misc]
    with pytest.raises(AttributeError):
        config.home = Path("/")  # type: ignore[misc]


def test_describe_shows_every_setting_with_its_origin(tmp_path: Path) -> None:
    (tmp_path / "broker.toml").write_text(TOML)
    config = load(tmp_path, None, {"BROKER_BUS_HEARTBEAT_SECS": "2.5"}, {"database.queue_limit": "500"})
    rows = {row.name: row for row in config.describe()}
    assert (rows["shutdown.timeout_secs"].value, rows["shutdown.timeout_secs"].line) == ("20", 3)
    assert rows["shutdown.timeout_secs"].source == str(tmp_path / "broker.toml")
    assert (rows["shutdown.force_quit"].value, rows["shutdown.force_quit"].line) == ("false", 4)
    assert rows["bus.heartbeat_secs"].source == "environment BROKER_BUS_HEARTBEAT_SECS"
    assert rows["database.queue_limit"].source == "command line"
    assert (rows["shutdown.force_delay_secs"].value, rows["shutdown.force_delay_secs"].source) == ("10", "default")
    assert rows["bus.socket"].value == str(tmp_path / "run" / "broker.sock")
