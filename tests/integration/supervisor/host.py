"""A process with a supervisor in it, for tests that kill it: prints every process of its plugins, then waits."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from broker.supervisor.processes import descendants
from tests.integration.supervisor.stage import Stage, until


async def main(home: Path) -> None:
    stage = Stage(home)
    await stage.mesh.open()
    stage.add("hello", peer={"deaf": True, "forks": True})
    stage.add("logger", peer={"deaf": True, "stays": True})
    stage.add_folder("changes_group")
    await asyncio.gather(stage.supervisor.start("hello"), stage.supervisor.start("logger"))
    changing = asyncio.create_task(stage.supervisor.start("changes_group"))
    below: list[int] = []

    def complete() -> bool:
        pid = stage.view("changes_group").pid
        below[:] = descendants(pid) if pid else []
        return bool(below)

    await stage.reaches("changes_group", "registering")
    await until(complete)
    mine = [view.pid for view in stage.supervisor.snapshot() if view.pid]
    forked = [pid for parent in mine for pid in descendants(parent)]
    print(*mine, *forked, flush=True)
    await changing


asyncio.run(main(Path(sys.argv[1])))
