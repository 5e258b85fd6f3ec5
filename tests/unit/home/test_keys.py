"""The keys in a broker's home, and what is said when one of them is broken."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.home import CurvePair, Home, HomeError

Break = Callable[[Path], None]


def _undecodable(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")


def _directory(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.mkdir()


def _dangling(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.symlink_to("nowhere")


def _unreadable(file: Path) -> None:
    file.write_text("secret")
    file.chmod(0)


# Root can read every file.
NOT_OF_ROOT = [] if os.geteuid() == 0 else [_unreadable]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.prepare()
    return made


@pytest.mark.parametrize("spoil", [_undecodable, _directory, _dangling, *NOT_OF_ROOT])
def test_a_broken_key_of_a_plugin_is_named_with_the_way_out(home: Home, spoil: Break) -> None:
    file = home.path / "keys" / "plugins" / "guest.key"
    spoil(file)
    with pytest.raises(HomeError) as raised:
        home.keys()
    assert str(file) in str(raised.value)
    assert "make a new one: broker key add" in str(raised.value)


@pytest.mark.parametrize("spoil", [_undecodable, _directory, *NOT_OF_ROOT])
def test_a_broken_key_of_the_operator_is_named_with_the_way_out(home: Home, spoil: Break) -> None:
    file = home.path / "keys" / "client.key"
    spoil(file)
    for use in (home.prepare, home.keys):
        with pytest.raises(HomeError, match="remove it, and `broker run` makes a new one") as raised:
            use()
        assert str(file) in str(raised.value)


@pytest.mark.parametrize("spoil", [_undecodable, _directory, *NOT_OF_ROOT])
def test_broken_curve_keys_are_named_with_the_way_out(home: Home, spoil: Break) -> None:
    home.save_server_pair(CurvePair("p" * 40, "s" * 40))
    for part, use in (("server.key", home.server_pair), ("clients/guest.pub", home.tcp_clients)):
        file = home.path / "keys" / "curve" / part
        spoil(file)
        with pytest.raises(HomeError, match="remove it") as raised:
            use()
        assert str(file) in str(raised.value)
