"""A plugin folder with 500 packages, looked through again when nothing has changed."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from packaging.version import Version

from broker.packages.build import add_signature, build
from broker.packages.keys import make_signing_pair, read_signing, trust
from plugin_sdk import connect
from tools.scaling.figures import Figure, ScaleError
from tools.scaling.mesh import Broker, fresh_broker

PACKAGES, BOUND_SECS = 500, 1.0
_TRIALS = 5
_MAIN = "from plugin_sdk import Plugin\n\nPlugin('{name}').run()\n"
_MANIFEST = 'name: {name}\nversion: "1.0"\ndescription: one of many\nenabled: false\nservices: [get]\n'


def measure(progress: Callable[[str], None], number: int = PACKAGES) -> list[Figure]:
    """Installs all of them, disabled, and has the broker look at them again; raises ScaleError when one is missing."""
    with fresh_broker() as broker:
        _fill(broker, number)
        progress(f"{number} packages are made and signed")
        broker.run()
        trials = asyncio.run(_reload(broker, number, progress))
        broker.stop()
    detail = f"the whole of broker reload-config, median of {_TRIALS}"
    return [Figure(f"rescan of {number} packages", sorted(trials)[_TRIALS // 2], BOUND_SECS, "s", detail)]


def _fill(broker: Broker, packages: int) -> None:
    work = broker.home.parent / "work"
    work.mkdir()
    secret, public = make_signing_pair(work, "maker")
    trusted = broker.home / "keys" / "trusted"
    trusted.mkdir(parents=True)
    (broker.home / "keys").chmod(0o700)
    trust(trusted, "maker", public)
    key = read_signing(secret)
    for number in range(packages):
        name = f"package{number}"
        folder = _folder(work, name)
        package = add_signature(build(folder, name, Version("1.0")), key)
        (broker.home / "plugins" / f"{name}-1.0.spk").write_bytes(package)


def _folder(work: Path, name: str) -> Path:
    folder = work / name
    folder.mkdir()
    (folder / "plugin.yaml").write_text(_MANIFEST.format(name=name))
    (folder / "main.py").write_text(_MAIN.format(name=name))
    return folder


async def _reload(broker: Broker, packages: int, progress: Callable[[str], None]) -> list[float]:
    async with connect(home=broker.home, name="operator") as bus:
        trials = []
        for number in range(_TRIALS + 1):
            began = time.monotonic()
            report = await bus.call("$broker.reload_config", {}, timeout=120, wait_ready=60)
            if number:
                trials.append(time.monotonic() - began)
                progress(f"rescan {number}: {trials[-1]:.3f} s")
            elif (found := str(report).count("plugin package")) < packages:
                raise ScaleError(f"{found} of {packages} packages are installed; {broker.log.read_text()[-2000:]}")
    return trials
