"""What a forked process gives up before it becomes a plugin (SEC-3, SEC-4).

Runs between fork and exec, in a process with one thread. Every step is reported as it came out: what was asked for and
what is in force may differ, by the kernel and by the rights of the broker.
"""

import resource
from collections.abc import Mapping, Sequence
from typing import Any

from broker.supervisor import bubblewrap, landlock
from broker.supervisor.processes import PR_SET_NO_NEW_PRIVS, drop_capabilities, prctl

REQUIRED = "required"

_RESOURCES = {
    "open_files": resource.RLIMIT_NOFILE,
    "file_size": resource.RLIMIT_FSIZE,
}


class NotConfined(Exception):
    """A plugin whose sandbox is required cannot have it; the text says what is missing."""


def confine(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Put a plan into force for this process and all that it becomes.

    Args:
        plan: `sandbox` ("off", "best-effort" or "required"), `bubblewrap` (whether it is to be that), `read` and
            `write` (paths), `rlimits` (by name) and `cgroup` (the folder of a group to join, or nothing).

    Returns:
        What is in force, and under `missing` what is not, each with the reason. With `bubblewrap` in it, it is in force
        once the program is run as to_run() says.

    Raises:
        NotConfined: the sandbox is required, and something is missing.
    """
    missing: list[str] = []
    in_force: dict[str, Any] = {"missing": missing}
    _limit(plan.get("rlimits", {}), in_force, missing)
    _join(plan.get("cgroup", ""), in_force, missing)
    sandbox = plan.get("sandbox", "off")
    if sandbox != "off":
        _enclose(plan, in_force, missing)
    if missing and sandbox == REQUIRED:
        raise NotConfined("; ".join(missing))
    return in_force


def to_run(command: Sequence[str], folder: str, plan: Mapping[str, Any], in_force: Mapping[str, Any]) -> list[str]:
    """The command that runs `command` in `folder` under what confine() has put in force."""
    if "bubblewrap" in in_force:
        return bubblewrap.wrapped(command, folder, plan.get("read", ()), plan.get("write", ()))
    return list(command)


def _limit(wanted: Mapping[str, int], in_force: dict[str, Any], missing: list[str]) -> None:
    for name, value in wanted.items():
        kind = _RESOURCES[name]
        hard = resource.getrlimit(kind)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (most, most))
            in_force[name] = most
        except (OSError, ValueError) as error:
            missing.append(f"{name}: {error}")


def _join(group: str, in_force: dict[str, Any], missing: list[str]) -> None:
    if not group:
        return
    try:
        with open(f"{group}/cgroup.procs", "w") as file:
            file.write("0")
        in_force["cgroup"] = group
    except OSError as error:
        missing.append(f"cgroup: {group} cannot be joined: {error.strerror}")


def _enclose(plan: Mapping[str, Any], in_force: dict[str, Any], missing: list[str]) -> None:
    if plan.get("bubblewrap"):
        trouble = bubblewrap.trouble()
        if not trouble:
            # It gives up privileges and capabilities itself, when it needs them no more.
            in_force |= {"no_new_privs": True, "capabilities": "none", "bubblewrap": bubblewrap.find()}
            return
        missing.append(f"bubblewrap: {trouble}")
    try:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        in_force["no_new_privs"] = True
        # Some of them go round Landlock: CAP_PERFMON alone shows the environment of every process.
        drop_capabilities()
        in_force["capabilities"] = "none"
    except OSError as error:
        missing.append(f"privileges: {error.strerror}")
        return
    known = landlock.version()
    if not known:
        missing.append("landlock: this kernel has none, or it is not among its security modules")
        return
    try:
        landlock.restrict(known, plan.get("read", ()), plan.get("write", ()))
        in_force["landlock"] = known
    except OSError as error:
        missing.append(f"landlock: {error.strerror}")
