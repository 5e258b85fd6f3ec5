"""A database password shows nowhere but where it is asked for."""

from pathlib import Path

import pytest

from broker.config import ConfigError, DatabaseUrl, load

URL = "mysql+pymysql://keeper:s3cret@db.example/mesh?charset=utf8mb4"
MASKED = "mysql+pymysql://keeper:***@db.example/mesh?charset=utf8mb4"


def test_printing_a_configuration_masks_the_password(tmp_path: Path) -> None:
    config = load(tmp_path, None, {"BROKER_DATABASE_URL": URL})
    shown = [repr(config), str(config), repr(config.database), str(config.database.url), str(config.describe())]
    assert not any("s3cret" in text for text in shown)
    assert all(MASKED in text for text in shown)
    assert config.database.url.get_secret_value() == URL


@pytest.mark.parametrize(
    "url",
    [
        "mysql://keeper:s3cret@db/mesh",
        "mysql+pymysql://keeper:s3cret@db",
        "mysql://keeper:a@s3cret/b@db",
        "mysql+pymysql//keeper:s3cret@db/mesh",
        "keeper:s3cret@db/mesh",
    ],
)
@pytest.mark.parametrize("place", ["file", "environment"])
def test_a_url_that_is_refused_keeps_its_password_too(tmp_path: Path, url: str, place: str) -> None:
    (tmp_path / "broker.toml").write_text(f"database.url = '{url}'" if place == "file" else "")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, None, {} if place == "file" else {"BROKER_DATABASE_URL": url})
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(caught.value.problems)
    assert caught.value.__context__ is None


def test_a_url_in_the_wrong_kind_of_value_is_not_shown_either(tmp_path: Path) -> None:
    (tmp_path / "broker.toml").write_text('database.url = ["mysql+pymysql://keeper:s3cret@db/mesh"]')
    with pytest.raises(ConfigError, match=r"expects a text in quotes, got '\*\*\*'"):
        load(tmp_path, None, {})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mysql+pymysql://keeper@db/mesh", "mysql+pymysql://keeper@db/mesh"),
        ("mysql+pymysql://keeper:@db/mesh", "mysql+pymysql://keeper:***@db/mesh"),
        ("mysql+pymysql://k:p@ss@db/mesh", "mysql+pymysql://k:***@db/mesh"),
        ("mysql+pymysql://k@db/mesh?password=x&charset=y", "mysql+pymysql://k@db/mesh?password=***&charset=y"),
        ("sqlite:////srv/broker.db", "sqlite:////srv/broker.db"),
    ],
)
def test_only_the_password_is_masked(url: str, shown: str) -> None:
    assert str(DatabaseUrl(url)) == shown
