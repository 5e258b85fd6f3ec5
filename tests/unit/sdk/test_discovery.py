"""Where the broker is and what admits us: what is found, and what is said when nothing is."""

from pathlib import Path
from typing import Any

import pytest

from plugin_sdk import ConnectionLost
from plugin_sdk.discovery import Address, CurveKeys, find_broker


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "keys" / "plugins").mkdir(parents=True)
    (tmp_path / "keys" / "client.key").write_text("operator-key\n")
    (tmp_path / "keys" / "plugins" / "hello.key").write_text("hello-key\n")
    return tmp_path


def find(home: Path | None = None, environ: dict[str, str] | None = None, **given: Any) -> Address:
    return find_broker(home=home, environ=environ or {}, **given)


def test_a_client_finds_socket_and_operator_key_in_the_home(home: Path) -> None:
    assert find(home) == Address(f"ipc://{home}/run/broker.sock", "operator-key")
    assert find(environ={"BROKER_HOME": str(home)}) == find(home)


def test_a_plugin_uses_a_key_of_its_own_where_there_is_one(home: Path) -> None:
    assert find(home, plugin="hello").token == "hello-key"
    assert find(home, plugin="other").token == "operator-key"


def test_a_managed_plugin_uses_what_the_broker_gave_it(home: Path) -> None:
    environ = {
        "BROKER_HOME": str(home),
        "BROKER_ENDPOINT": "ipc:///there",
        "BROKER_TOKEN": "once",
        "BROKER_PLUGIN": "hello",
    }
    assert find(environ=environ, plugin="hello") == Address("ipc:///there", "once", admits="hello")


def test_a_key_may_be_given_as_text_or_as_a_path(home: Path) -> None:
    assert find(home, key="some-text").token == "some-text"
    assert find(home, key=home / "keys" / "plugins" / "hello.key").token == "hello-key"
    assert find(home, key=str(home / "keys" / "plugins" / "hello.key")).token == "hello-key"
    assert find(home, {"BROKER_KEY": "from-the-environment"}).token == "from-the-environment"
    assert find(home, key="k" * 500).token == "k" * 500


def test_a_key_file_that_is_not_there_is_named_and_its_path_is_not_taken_for_a_key(home: Path) -> None:
    with pytest.raises(ConnectionLost, match=r"no key found at /nowhere/some\.key: is the broker's home right"):
        find(home, key="/nowhere/some.key")


def test_a_home_without_keys_says_where_was_looked_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConnectionLost, match=r"no key found at .*plugins/hello\.key or .*client\.key: .*broker run"):
        find(tmp_path, plugin="hello")


def test_a_file_that_is_no_key_is_named(home: Path) -> None:
    (home / "keys" / "client.key").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConnectionLost, match=r"client\.key is not a key file"):
        find(home)


def test_a_key_file_that_cannot_be_read_is_named(home: Path) -> None:
    with pytest.raises(ConnectionLost, match=r"cannot read the key .*keys: Is a directory"):
        find(home, key=home / "keys")


def test_tcp_takes_a_pair_of_keys_and_the_public_key_of_the_broker(tmp_path: Path) -> None:
    file = tmp_path / "ada.key"
    file.write_text("# made by somebody\nserver=S\npublic=P\nsecret=X\n")
    assert find(tmp_path, endpoint="tcp://there:7777", key=file).curve == CurveKeys(b"S", b"P", b"X")


@pytest.mark.parametrize("text", ["", "server=S\n", "server=S\npublic=P\nsecret=\u00e9\n"])
def test_a_key_file_for_tcp_that_lacks_something_says_what_it_needs(tmp_path: Path, text: str) -> None:
    file = tmp_path / "ada.key"
    file.write_text(text)
    with pytest.raises(
        ConnectionLost, match="is not a key file for TCP: it needs the lines server=, public= and secret="
    ):
        find(tmp_path, endpoint="tcp://there:7777", key=file)


def test_tcp_without_a_key_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConnectionLost, match="TCP needs a key file: make one with `broker key add NAME --tcp`"):
        find(tmp_path, endpoint="tcp://there:7777")


def test_no_secret_shows_when_an_address_is_printed() -> None:
    text = repr(Address("tcp://there", "the-token", CurveKeys(b"S", b"P", b"the-secret")))
    assert "the-token" not in text
    assert "the-secret" not in text
