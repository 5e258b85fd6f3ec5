"""`broker package`: keys, and packages as files. None of it needs a running broker."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

from broker.cli.asking import look_into, show_wishes
from broker.cli.session import dump_json, fail
from broker.cli.settings import config_option, load_config
from broker.home import Home, HomeError
from broker.packages.errors import KeyFileError, PackageError
from plugin_sdk.wire.errors import BusError

if TYPE_CHECKING:
    from datetime import datetime

T = TypeVar("T")

_file = click.Path(path_type=Path, dir_okay=False)
_folder = click.Path(path_type=Path, file_okay=False, exists=True)


@click.group()
def package() -> None:
    """Make and check plugin packages (.spk), and say whose packages are trusted."""


@package.command()
@click.argument("name", required=False)
@click.option("--out", type=_folder, default=".", show_default=True, help="Where NAME.key and NAME.pub go.")
@click.option("--recipient", is_flag=True, help="Make this broker's own pair, to which packages can be encrypted.")
@click.pass_obj
def keygen(home: Path, name: str | None, out: Path, recipient: bool) -> None:
    """Make the Ed25519 key pair NAME.key and NAME.pub, with which NAME signs packages."""
    from broker.packages.keys import make_recipient_pair, make_signing_pair

    if (name is None) is not recipient:
        raise click.UsageError("say either NAME, for a pair that signs, or --recipient, for the pair of this broker")
    if name is not None:
        secret, public = _tried(lambda: make_signing_pair(out, name))
        click.echo(f"{secret}  keep it secret: whoever has it can sign as {name}")
        click.echo(f"{public}  give it to those who shall trust you: broker package trust {public.name}")
        return
    place = Home(home)
    _tried(place.prepare)
    secret, public = _tried(lambda: make_recipient_pair(place.recipient))
    click.echo(f"{secret}  stays here")
    click.echo(f"{public}  give it to those who make packages for this broker: broker package build --recipient")


@package.command()
@click.argument("file", type=_file)
@click.option("--name", help="The name it gets here; by default that of the file.")
@click.pass_obj
def trust(home: Path, file: Path, name: str | None) -> None:
    """Trust the public key in FILE: packages that it signed may be installed."""
    from broker.packages.keys import trust as admit

    place = Home(home)
    _tried(place.prepare)
    key = _tried(lambda: admit(place.trusted, name or file.stem, file))
    click.echo(f"{key.name} ({key.key_id}) is trusted; 'broker reload-config' looks again at what was refused")


@package.command()
@click.argument("name")
@click.pass_obj
def untrust(home: Path, name: str) -> None:
    """Trust the key NAME no more; what it signed is stopped at the next start or reload-config."""
    from plugin_sdk.wire.subjects import check_name

    folder = Home(home).trusted
    file = folder / f"{_tried(lambda: check_name(name))}.pub"
    if not file.exists():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.pub"))) or "none"
        fail(f"no key {name!r} is trusted here; trusted are: {known}")
    file.unlink()
    click.echo(f"removed {file}")


@package.command()
@click.argument("folder", type=_folder)
@click.option("--out", type=_folder, default=".", show_default=True, help="Where ID-VERSION.spk goes.")
@click.option("--key", type=_file, help="Sign it at once with this private key.")
@click.option("--recipient", type=_file, help="Encrypt it to the broker that this public key is of.")
@click.option("--expires", metavar="DATE", help="Not to be installed after this, such as 2027-06-30 (UTC).")
def build(folder: Path, out: Path, key: Path | None, recipient: Path | None, expires: str | None) -> None:
    """Make a package of the plugin in FOLDER; the same folder always gives the same bytes, unless it is encrypted."""
    from broker.packages import build as maker
    from broker.packages.keys import read_recipient_public, read_signing
    from broker.packages.names import file_name
    from broker.supervisor.discovery import read_folder

    found = read_folder(folder, Path(os.devnull))
    if found.manifest is None:
        fail(found.fault)
    identity = (found.manifest.id, found.manifest.version)
    moment = _moment(expires)
    to = _tried(lambda: read_recipient_public(recipient)) if recipient else None
    data = _tried(lambda: maker.build(folder, *identity, expires=moment, recipient=to))
    if key:
        secret = _tried(lambda: read_signing(key))
        data = _tried(lambda: maker.add_signature(data, secret))
    file = out / file_name(*identity)
    _write(file, data)
    click.echo(f"{file}  {len(data)} bytes" + ("" if key else ", not signed: broker package sign --key KEY FILE"))


@package.command()
@click.argument("file", type=_file)
@click.option("--key", type=_file, required=True, help="The private key.")
def sign(file: Path, key: Path) -> None:
    """Sign the package FILE, in the place of any other signature."""
    from broker.packages.build import add_signature
    from broker.packages.keys import read_signing

    secret = _tried(lambda: read_signing(key))
    _write(file, _tried(lambda: add_signature(file.read_bytes(), secret)))
    click.echo(f"{file} is signed with {key}")


@package.command()
@config_option
@click.argument("file", type=_file)
@click.pass_obj
def verify(home: Path, config: Path | None, file: Path) -> None:
    """Check the package FILE as this broker would before it installs it; exit status 0 when it would."""
    loaded = load_config(home, config)
    found = _tried(lambda: look_into(home, file, loaded.plugin_manager.allow_unsigned), file)
    try:
        found.package.admit(found.rules)
    except PackageError as error:
        _refuse(error, file)
    click.echo(f"{file}: {found.title}")


@package.command()
@config_option
@click.argument("file", type=_file)
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@click.pass_obj
def inspect(home: Path, config: Path | None, file: Path, as_json: bool) -> None:
    """Show what the package FILE holds and what it asks for, whoever signed it; nothing of it is run."""
    from msgspec import to_builtins

    loaded = load_config(home, config)
    found = _tried(lambda: look_into(home, file, loaded.plugin_manager.allow_unsigned), file)
    manifest = found.package.manifest
    if as_json:
        facts = {"state": found.package.state, "signer": found.package.verdict.signer, "key": found.package.verdict.key}
        click.echo(dump_json({**facts, "digest": found.package.contents.digest, **to_builtins(manifest)}, indent=2))
        return
    click.echo(found.title)
    click.echo(f"  digest        {found.package.contents.digest}")
    if manifest.expires:
        click.echo(f"  expires       {manifest.expires}")
    if manifest.encryption:
        click.echo(f"  encrypted to  {manifest.encryption.recipient}")
    for each in manifest.files:
        click.echo(f"  {each.mode} {each.size:>10} {each.sha256[:16]} {each.path}")
    show_wishes(_tried(found.wishes, file))


def _moment(text: str | None) -> datetime | None:
    from broker.packages.manifest import parse_moment

    try:
        return parse_moment(text) if text else None
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a date such as 2027-06-30", param_hint="--expires") from None


def _write(file: Path, data: bytes) -> None:
    draft = file.with_name(f".{file.name}.part")
    try:
        draft.write_bytes(data)
        draft.replace(file)
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}")


def _tried(work: Callable[[], T], file: Path | None = None) -> T:
    """What work returns; ends the process with the reason when it cannot be done."""
    try:
        return work()
    except PackageError as error:
        _refuse(error, file)
    except (KeyFileError, HomeError, BusError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or file}: {error.strerror}")


def _refuse(error: PackageError, file: Path | None) -> NoReturn:
    fail(f"{file}: {error}" if file else str(error))
