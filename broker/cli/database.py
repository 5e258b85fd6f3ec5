"""`broker db`: the schema of the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from broker.cli.session import fail
from broker.cli.settings import config_option, load_config


@click.group()
def db() -> None:
    """Look at the schema of the database, or change it, which is refused while the broker runs."""


@db.command()
@config_option
@click.argument("revision", default="head")
@click.pass_obj
def upgrade(home: Path, config: Path | None, revision: str) -> None:
    """Bring the schema forward to REVISION, by default the newest."""
    _migrate(home, config, "upgrade", revision)


@db.command()
@config_option
@click.argument("revision")
@click.pass_obj
def downgrade(home: Path, config: Path | None, revision: str) -> None:
    """Take the schema back to REVISION; `base` removes all tables and what is in them."""
    _migrate(home, config, "downgrade", revision)


@db.command()
@config_option
@click.pass_obj
def current(home: Path, config: Path | None) -> None:
    """Print the revision of the schema."""
    _migrate(home, config, "current", "")


def _migrate(home: Path, config: Path | None, verb: str, revision: str) -> None:
    from broker.home import HomeBusy, HomeError
    from broker.store import StoreError, migrate

    url = load_config(home, config).database.url.get_secret_value()
    try:
        if verb == "current":
            click.echo(migrate.current(url) or "base")
            return
        with _no_broker(home):
            (migrate.upgrade if verb == "upgrade" else migrate.downgrade)(url, revision)
            click.echo(migrate.current(url) or "base")
    except HomeBusy as error:
        fail(f"the broker on {home} is running and uses the schema: stop it first (kill {error.holder})")
    except (HomeError, StoreError) as error:
        fail(str(error))


@contextmanager
def _no_broker(home: Path) -> Iterator[None]:
    """Keeps brokers from running on `home`; raises HomeBusy when one does."""
    from broker.home import HomeLock

    if not home.is_dir():
        yield
        return
    lock = HomeLock(home)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
