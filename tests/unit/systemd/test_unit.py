"""The unit file: what systemd makes of it, and what becomes of one that somebody has edited."""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from broker.systemd.unit import Service, is_untouched, make_unit

SERVICE = Service(
    name="plugmesh",
    home=Path("/var/lib/plugmesh"),
    command=("/bin/true",),
    config=None,
    account="root",
    stop_secs=40.0,
    watchdog_secs=None,
)
AWKWARD = Path('/srv/a b/100%/$HOME/"quoted"/back\\slash')


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not installed")
    return found


@pytest.mark.parametrize(
    "service",
    [
        SERVICE,
        replace(SERVICE, account=None),
        replace(SERVICE, home=AWKWARD, config=AWKWARD / "broker.toml"),
        replace(SERVICE, stop_secs=None, watchdog_secs=30.0),
    ],
    ids=["of the system", "of a user", "awkward names", "watchdog, no forced end"],
)
def test_systemd_finds_nothing_wrong(analyze: str, tmp_path: Path, service: Service) -> None:
    file = tmp_path / "plugmesh.service"
    file.write_text(make_unit(service))
    # The verifier of user units wants a directory that only a login has.
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    kind = ["--user"] if service.account is None else []
    done = subprocess.run([analyze, "verify", *kind, str(file)], env=environ, capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if str(file) in line or "plugmesh" in line]
    assert (done.returncode, complaints) == (0, [])


def value(text: str, name: str) -> str:
    found = re.search(rf"^{name}=(.*)$", text, re.MULTILINE)
    return found[1] if found else ""


def test_names_are_quoted_as_systemd_wants_it() -> None:
    line = value(make_unit(replace(SERVICE, home=AWKWARD)), "ExecStart")
    assert line == r'/bin/true --home "/srv/a b/100%%/$$HOME/\"quoted\"/back\\slash" run'


def test_systemd_waits_longer_for_the_end_than_the_broker_takes() -> None:
    assert value(make_unit(SERVICE), "TimeoutStopSec") == "50"
    assert value(make_unit(replace(SERVICE, stop_secs=None)), "TimeoutStopSec") == "infinity"


def test_only_the_broker_is_signalled_and_a_plugin_without_memory_stops_no_other() -> None:
    text = make_unit(SERVICE)
    assert (value(text, "KillMode"), value(text, "OOMPolicy"), value(text, "Type")) == ("mixed", "continue", "notify")


def test_nothing_that_plugins_may_need_is_taken_away() -> None:
    harmful = ["ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateNetwork", "RestrictNamespaces", "DeviceAllow"]
    harmful += ["MemoryDenyWriteExecute", "SystemCallFilter", "RestrictAddressFamilies", "ProtectKernelTunables"]
    assert not [name for name in harmful if value(make_unit(SERVICE), name)]


def test_an_edited_unit_is_known() -> None:
    text = make_unit(SERVICE)
    assert is_untouched(text)
    assert not is_untouched(text.replace("RestartSec=2", "RestartSec=9"))
    assert not is_untouched(text + "Environment=A=1\n")
    assert not is_untouched("[Service]\nExecStart=/bin/true\n")
