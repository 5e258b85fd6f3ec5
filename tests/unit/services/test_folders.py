"""The folders of the shipped services say what their code does: manifest, settings and README agree with it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from broker.supervisor.discovery import discover
from plugin_sdk import Plugin
from plugin_sdk.testing import mesh
from services.database import database
from services.hello import hello
from services.logger import logger
from services.notification import notification
from services.stdout import stdout
from services.users import users
from tests.unit.services.support import SERVICES, shipped_config

PLUGINS: dict[str, Plugin] = {
    "database": database.Database("database"),
    "hello": hello.plugin,
    "logger": logger.Logger("logger"),
    "notification": notification.Notification("notification"),
    "stdout": stdout.Stdout("stdout"),
    "users": users.Users("users"),
}


def test_every_folder_is_a_plugin_without_a_fault(tmp_path: Path) -> None:
    catalog = discover([SERVICES], tmp_path)
    assert {each.plugin_id: each.fault for each in catalog.plugins} == dict.fromkeys(PLUGINS, "")
    assert catalog.warnings == ()


@pytest.mark.parametrize("name", PLUGINS)
def test_the_manifest_names_the_services_that_the_code_declares(tmp_path: Path, name: str) -> None:
    (manifest,) = (each.manifest for each in discover([SERVICES], tmp_path).plugins if each.plugin_id == name)
    assert manifest is not None
    declared = [each.name for each, _ in PLUGINS[name].declared if each.what == "service"]
    assert sorted(manifest.services) == sorted(f"{name}.{each}" for each in declared)
    assert manifest.description


@pytest.mark.parametrize("name", PLUGINS)
async def test_the_shipped_configuration_is_accepted(name: str) -> None:
    async with mesh() as m:
        await m.start(PLUGINS[name], shipped_config(name))


@pytest.mark.parametrize("module", [logger, stdout, notification], ids=lambda module: module.__name__)
def test_the_defaults_of_code_and_manifest_are_the_same(module: Any) -> None:
    name = module.__name__.rpartition(".")[2]
    shipped, coded = shipped_config(name), asdict(module.Settings())
    if name == "notification":
        assert shipped.pop("smtp") == asdict(notification.SmtpSettings())
        coded.pop("smtp")
    assert shipped == coded


@pytest.mark.parametrize("name", PLUGINS)
def test_the_readme_tells_of_every_service_and_setting(name: str) -> None:
    text = (SERVICES / name / "README.md").read_text()
    config = shipped_config(name)
    settings = [*config, *(f"smtp.{each}" for each in config.get("smtp", ()))]
    services = [f"{name}.{each.name}" for each, _ in PLUGINS[name].declared if each.what == "service"]
    missing = [each for each in [*services, *settings] if f"`{each}`" not in text and each != "smtp"]
    assert not missing
    assert "broker " in text, "it says how to try it"
