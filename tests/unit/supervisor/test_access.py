"""Permissions as plugins ask for them and operators grant them."""

from pathlib import Path

import pytest

from broker.core.grants import UNRESTRICTED, Permissions
from broker.supervisor.access import NOTHING, Access, Grants, read_grants
from broker.supervisor.discovery import discover
from broker.supervisor.document import BadDocument


def asked(tmp_path: Path, permissions: str) -> Access | None:
    folder = tmp_path / "plugins" / "hello"
    folder.mkdir(parents=True)
    (folder / "plugin.yaml").write_text(f'name: hello\nversion: "1.0"\n{permissions}')
    (folder / "main.py").touch()
    (plugin,) = discover([tmp_path / "plugins"], tmp_path / "config").plugins
    assert not plugin.fault, plugin.fault
    assert plugin.manifest
    return plugin.manifest.permissions


def grants(tmp_path: Path, text: str) -> Grants:
    (tmp_path / "grants.yaml").write_text(text)
    return read_grants(tmp_path)


def test_a_plugin_that_asks_for_nothing_in_particular_is_free(tmp_path: Path) -> None:
    assert Grants().of("hello", asked(tmp_path, ""), as_declared=True) == UNRESTRICTED


def test_a_plugin_has_exactly_what_it_asks_for(tmp_path: Path) -> None:
    section = "permissions:\n  event_bus: {publish: [user.welcome]}\n  services: {call: [users.get]}\n"
    granted = Grants().of("hello", asked(tmp_path, section), as_declared=True)
    assert granted == Permissions(publish=("user.welcome",), subscribe=(), call=("users.get",))


def test_an_empty_section_asks_for_nothing_at_all(tmp_path: Path) -> None:
    assert Grants().of("hello", asked(tmp_path, "permissions: {}\n"), as_declared=True) == NOTHING


def test_a_list_of_verbs_means_every_subject(tmp_path: Path) -> None:
    granted = Grants().of("hello", asked(tmp_path, "permissions:\n  event_bus: [publish]\n"), as_declared=True)
    assert (granted.publish, granted.subscribe) == ((">",), ())


def test_writing_to_the_logger_is_a_service_and_its_subjects(tmp_path: Path) -> None:
    granted = Grants().of("hello", asked(tmp_path, "permissions:\n  logger: [write]\n"), as_declared=True)
    assert (granted.publish, granted.call) == (("log.>",), ("logger.write",))


def test_the_operator_has_the_last_word(tmp_path: Path) -> None:
    file = grants(tmp_path, "plugins:\n  hello:\n    event_bus: {subscribe: [user.login]}\n")
    section = "permissions:\n  event_bus: [publish, subscribe]\n"
    granted = file.of("hello", asked(tmp_path, section), as_declared=True)
    assert granted == Permissions(publish=(), subscribe=("user.login",), call=())


def test_a_role_adds_to_what_is_granted(tmp_path: Path) -> None:
    file = grants(
        tmp_path,
        """
roles:
  reader: {event_bus: {subscribe: ["user.>"]}, services: {offer: [hello.greet]}}
  writer: {logger: [write]}
plugins:
  hello: {roles: [reader, writer], event_bus: {publish: [user.welcome]}}
""",
    )
    assert file.of("hello", None, as_declared=True) == Permissions(
        publish=("user.welcome", "log.>"), subscribe=("user.>",), call=("logger.write",), offer=("hello.greet",)
    )


def test_the_star_stands_for_plugins_without_an_entry(tmp_path: Path) -> None:
    file = grants(tmp_path, 'plugins:\n  "*": {event_bus: {publish: ["a.>"]}}\n  hello: {}\n')
    assert file.of("other", None, as_declared=True).publish == ("a.>",)
    assert file.of("hello", None, as_declared=True) == NOTHING


def test_where_only_grants_count_a_plugin_without_one_may_do_nothing(tmp_path: Path) -> None:
    section = "permissions:\n  event_bus: [publish, subscribe]\n"
    assert Grants().of("hello", asked(tmp_path, section), as_declared=False) == NOTHING


def test_without_a_file_nothing_is_granted_beside_what_is_asked_for(tmp_path: Path) -> None:
    assert read_grants(tmp_path) == Grants()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "plugins:\n  hello: {event_bus: {publish: [user..x]}}\n",
            ":2: plugins.hello.event_bus.publish[0]: is 'user..x'",
        ),
        ("plugins:\n  hello: {event_bus: {publihs: [a]}}\n", "publihs: is not a field; did you mean 'publish'?"),
        ("plugins:\n  hello: {logger: [read]}\n", "plugins.hello.logger[0]: is 'read'; expects a list: [write]"),
        ("plugins:\n  hello: {roles: [reader]}\n", ":2: role 'reader' of 'hello' is not described; there are none"),
        ("plugins: [hello]\n", "plugins: is ['hello']; expects permissions and roles by plugin"),
    ],
)
def test_a_broken_file_is_explained_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(BadDocument) as error:
        grants(tmp_path, text)
    assert problem in str(error.value)
    assert str(tmp_path / "grants.yaml") in str(error.value)
