"""The limits and the sandbox that a plugin is to have: asked for in files, planned for the launcher (SEC-3, SEC-4)."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, structs

from broker.supervisor.section import Section
from broker.supervisor.values import FLAG, Before

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

# What programs of any language need of the system. The home of the broker is not in it: its keys are there.
_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix/store",
    "/proc",
    "/sys",
)
_RUN = ("/run/systemd/resolve", "/run/resolvconf", "/run/nscd")  # where names of hosts are looked up
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/shm")


def _bytes(value: object) -> object:
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", value.strip())):
        return round(float(match[1]) * _UNITS[match[2]])
    return value


def _off(value: object) -> object:
    """YAML reads the word off as false."""
    return "off" if value is False else value


Size = Annotated[
    Annotated[int, Meta(ge=1 << 20)] | None,
    Meta(description="a size of 1M or more, such as 256M or 1.5G"),
    Before(_bytes),
]
Count = Annotated[Annotated[int, Meta(ge=1)] | None, Meta(description="a whole number of 1 or more")]
Cores = Annotated[Annotated[float, Meta(gt=0)] | None, Meta(description="a number of cores, such as 0.5")]
Paths = Annotated[
    tuple[Annotated[str, Meta(pattern="^/")], ...], Meta(description="a list of paths that begin with '/'")
]
Mode = Literal["off", "best-effort", "required"]
Over = Literal["report", "restart", "stop"]

PACKAGE_SANDBOX: Mode = "best-effort"  # of a package about which nobody says anything


class ResourceLimits(Section, frozen=True):
    """What a plugin may use, with all of its processes; None is no limit, `over` what happens beyond it."""

    memory: Size = None
    cpu: Cores = None
    processes: Count = None
    open_files: Count = None
    file_size: Size = None
    over: Annotated[Over | None, Meta(description="report, restart or stop")] = None

    def known(self) -> dict[str, Any]:
        """Those that there are, by name."""
        return {name: value for name, value in structs.asdict(self).items() if value is not None}

    def of_all(self) -> dict[str, Any]:
        """Those that hold for all processes of a plugin together."""
        return {name: value for name, value in self.known().items() if name in ("memory", "cpu", "processes")}

    def within(self, most: "ResourceLimits") -> "ResourceLimits":
        """These, and none of them above `most`."""
        wanted, bounds = self.known(), most.known()
        return ResourceLimits(
            **{**bounds, **{name: min(value, bounds.get(name, value)) for name, value in wanted.items()}}
        )


NO_LIMITS = ResourceLimits()


class AskedSandbox(Section, frozen=True):
    """What a plugin says it reaches beside the system and its own data directory; it cannot switch its sandbox off."""

    mode: Annotated[Literal["best-effort", "required"] | None, Meta(description="best-effort or required")] = None
    bubblewrap: Annotated[bool | None, FLAG] = None
    read: Paths = ()
    write: Paths = ()


class Sandbox(Section, frozen=True):
    """The same, by the operator, who can."""

    mode: Annotated[Mode | None, Meta(description="off, best-effort or required"), Before(_off)] = None
    bubblewrap: Annotated[bool | None, FLAG] = None
    read: Paths = ()
    write: Paths = ()


@dataclass(frozen=True, slots=True)
class Confinement:
    """What one plugin is to have.

    Args:
        limits: of all its processes together, but for open files and the size of a file, which hold for each of them.
        mode: of its sandbox.
        read: paths that it may read beside the system.
        write: paths that it may write beside its own data directory.
        bubblewrap: whether its sandbox is to be that, and Landlock only where it cannot be had.
    """

    limits: ResourceLimits
    mode: Mode = "off"
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    bubblewrap: bool = False

    def asked(self) -> dict[str, Any]:
        """What was asked for, for those who look."""
        wrapped = {"bubblewrap": True} if self.bubblewrap and self.mode != "off" else {}
        return {"sandbox": self.mode, **wrapped, **self.limits.known()}

    def plan(self, folder: str, data: str, socket: str, environ: Mapping[str, str], group: str = "") -> dict[str, Any]:
        """The orders for the launcher, as JSON.

        Args:
            folder: the plugin's own, which it may read.
            data: its data directory, which it may write.
            socket: the broker's socket, or nothing.
            environ: the plugin's environment; a Python plugin needs what PYTHONPATH names.
            group: the folder of the control group that it joins, or nothing.
        """
        modules = [path for path in environ.get("PYTHONPATH", "").split(":") if path.startswith("/")]
        interpreter = dict.fromkeys((sys.prefix, sys.base_prefix, str(Path(__file__).parents[2])))
        rlimits = {"open_files": self.limits.open_files, "file_size": self.limits.file_size}
        return {
            "sandbox": self.mode,
            "bubblewrap": self.bubblewrap,
            "read": [*_SYSTEM, *_RUN, *interpreter, *modules, folder, *([socket] if socket else []), *self.read],
            "write": [*_DEVICES, data, *self.write],
            "rlimits": {name: value for name, value in rlimits.items() if value is not None},
            "cgroup": group,
        }


def confinement(
    asked: ResourceLimits,
    asked_sandbox: AskedSandbox,
    ordered: ResourceLimits,
    ordered_sandbox: Sandbox,
    most: ResourceLimits,
    default: Mode,
) -> Confinement:
    """What a plugin is to have.

    Args:
        asked: what its manifest says, which never exceeds `most`.
        asked_sandbox: the same.
        ordered: what the operator's file of this plugin says; it goes before everything else.
        ordered_sandbox: the same.
        most: the limits of the broker's configuration.
        default: the mode of a plugin about which nobody says anything.
    """
    wanted = asked.within(most).known()
    if wanted.get("over") == "report":
        # It would keep the kernel from keeping the limits, the operator's too; that is for the operator to say.
        del wanted["over"]
    limits = ResourceLimits(**{**wanted, **ordered.known()})
    ordered_wrap, asked_wrap = ordered_sandbox.bubblewrap, asked_sandbox.bubblewrap
    wrap = bool(asked_wrap if ordered_wrap is None else ordered_wrap)
    if wrap and default == "off":
        default = PACKAGE_SANDBOX  # who names a kind of sandbox wants one
    mode: Mode = ordered_sandbox.mode or asked_sandbox.mode or default
    read = (*asked_sandbox.read, *ordered_sandbox.read)
    return Confinement(limits, mode, read, (*asked_sandbox.write, *ordered_sandbox.write), wrap)
