"""`broker install` and `broker remove`: packages of a broker, whether it runs or not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.cli.asking import LookedInto, look_into, show_wishes
from broker.cli.progress import order
from broker.cli.session import ask, fail, listens
from broker.cli.settings import config_option, load_config
from broker.cli.status import ANSWER_SECS
from broker.home import Home, HomeError, HomeLock
from broker.packages.errors import PackageError
from broker.packages.names import SUFFIX, parse_file_name

if TYPE_CHECKING:
    from broker.config import Config
    from broker.packages.installer import Installer

# A first start may take its time, and an upgrade waits for the new version to prove itself.
_ORDER_SECS = 300.0
_yes = click.option("--yes", is_flag=True, help="Do not ask.")


@click.command()
@config_option
@click.argument("what", metavar="FILE|ID")
@_yes
@click.option("--downgrade", is_flag=True, help="Let it take the place of a newer version.")
@click.pass_obj
def install(home: Path, config: Path | None, what: str, yes: bool, downgrade: bool) -> None:
    """Install the package FILE, or the newest package of the plugin ID that was replaced or removed before.

    What the package asks for is shown first. A running broker starts it, or upgrades the version that runs; one that
    does not run starts it when it starts itself.
    """
    loaded = load_config(home, config)
    file = _file(home, what)
    found = _looked_into(home, loaded, file)
    _agree(f"install {found.package.manifest.id} {found.package.manifest.version}?", yes)
    digest = found.package.contents.digest
    if not listens(home):
        _install_alone(home, loaded, file, digest, downgrade)
        return
    what_to_do = {"file": str(file.absolute()), "digest": digest, "downgrade": downgrade}
    done = order(home, "$broker.install", what_to_do, _ORDER_SECS)
    click.echo(f"{done['id']} {done['version']} is installed ({done['state']})")
    _tell_standing(home, done["id"])


@click.command()
@config_option
@click.argument("name")
@click.option("--purge", is_flag=True, help="Remove its data and older packages, too.")
@_yes
@click.pass_obj
def remove(home: Path, config: Path | None, name: str, purge: bool, yes: bool) -> None:
    """Stop the plugin NAME and remove its package; `broker install NAME` brings it back, unless it is purged."""
    loaded = load_config(home, config)
    if purge:
        _agree(f"remove {name} with all of its data?", yes)
    if listens(home):
        order(home, "$broker.remove", {"name": name, "purge": purge}, _ORDER_SECS)
    else:
        _remove_alone(home, loaded, name, purge)
    click.echo(f"{name} is removed" + (" with its data" if purge else f"; its data is kept: {_data(loaded, name)}"))


def _file(home: Path, what: str) -> Path:
    if Path(what).is_file() or "/" in what or what.endswith(SUFFIX):
        return Path(what)
    kept = [file for file in (Home(home).installed / what).glob(f"*{SUFFIX}") if parse_file_name(file.name)]
    if not kept:
        fail(f"there is no file {what!r}, and no package of a plugin {what!r} that was replaced or removed before")
    return max(kept, key=_version)


def _version(file: Path) -> Any:
    parsed = parse_file_name(file.name)
    return parsed and parsed[1]


def _looked_into(home: Path, config: Config, file: Path) -> LookedInto:
    """Looks into the package and shows it; ends the process when it is refused."""
    try:
        found = look_into(home, file, config.plugin_manager.allow_unsigned)
        found.package.admit(found.rules)
        wishes = found.wishes()
    except PackageError as error:
        fail(f"{file}: {error}")
    click.echo(found.title)
    show_wishes(wishes)
    return found


def _agree(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        fail("nobody is there to ask: say --yes")
    if not click.confirm(question):
        raise SystemExit(1)


def _tell_standing(home: Path, name: str) -> None:
    """Says how the plugin stands, and ends with a failure when it does not run though it should."""
    rows = ask(home, "$broker.status", {"name": name}, ANSWER_SECS)["plugins"]
    click.echo(f"{name} is {rows[0]['state']}" + (f" (process {rows[0]['pid']})" if rows[0]["pid"] else ""))
    if rows[0]["error"]:
        fail(rows[0]["error"])


def _install_alone(home: Path, config: Config, file: Path, digest: str, downgrade: bool) -> None:
    from broker.packages.installer import refuse_older

    with _alone(home, config) as installer:
        record, copy = installer.bring(file, digest)
        try:
            refuse_older(record, installer.installed.active(record.id), downgrade=downgrade)
            installer.settle(record, copy)
        finally:
            # The broker unpacks it when it starts, and writes that into its audit log.
            installer.drop(record, copy)
    click.echo(f"{record.id} {record.version} is installed; no broker is running: it is started with the broker")


def _remove_alone(home: Path, config: Config, name: str, purge: bool) -> None:
    import shutil

    with _alone(home, config) as installer:
        if not installer.remove(name) and not (purge and installer.installed.kept(name)):
            fail(f"no package of {name!r} is installed; a plugin folder is yours to move away")
        installer.installed.clear(name)
        if purge:
            installer.installed.purge(name)
            shutil.rmtree(_data(config, name), ignore_errors=True)


@contextmanager
def _alone(home: Path, config: Config) -> Iterator[Installer]:
    """The files of a broker that does not run, and cannot be started meanwhile."""
    from broker.daemon.packages import make_installer

    place = Home(home)
    lock = HomeLock(place.path)
    try:
        place.prepare()
        lock.acquire()
        yield make_installer(config, place)
    except HomeError as error:
        fail(str(error))
    except PackageError as error:
        fail(str(error))
    finally:
        lock.release()


def _data(config: Config, name: str) -> Path:
    return config.plugin_manager.data_dir / name
