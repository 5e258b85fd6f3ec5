"""A password never shows, however the URL is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.store import masked


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////home/ada/broker.db", "sqlite:////home/ada/broker.db"),
        ("mysql+pymysql://mesh:s3cret@db/mesh", "mysql+pymysql://mesh:***@db/mesh"),
        ("mysql+pymysql://mesh@db:3306/mesh", "mysql+pymysql://mesh@db:3306/mesh"),
        ("mysql+pymysql://db:3306/mesh", "mysql+pymysql://db:3306/mesh"),
        ("mysql+pymysql://db:3306", "mysql+pymysql://db:3306"),
        ("mysql+pymysql://mesh:s3cret@[::1]:3306/mesh", "mysql+pymysql://mesh:***@[::1]:3306/mesh"),
        ("mysql+pymysql://mesh:s3cret/mesh", "mysql+pymysql://mesh:***/mesh"),
        ("mysql+pymysql://db/mesh?password=s3cret&a=b", "mysql+pymysql://db/mesh?password=***&a=b"),
        ("mysql+pymysql://db/mesh?a=b&passwd=s3cret", "mysql+pymysql://db/mesh?a=b&passwd=***"),
        ("mesh:s3cret@db", "mesh:***@db"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert masked(url) == shown


@given(st.text(min_size=1, max_size=20), st.sampled_from(["@db/mesh", "@db:3306/mesh?a=b", "@db"]))
def test_no_password_shows_even_when_it_is_not_quoted(password: str, rest: str) -> None:
    secret = f"s3{password}cr3t"
    assert masked(f"mysql+pymysql://mesh:{secret}{rest}") == f"mysql+pymysql://mesh:***{rest}"
