"""Short runs of `tools/chaos`: what docs/guarantees.md promises, on processes that are killed, frozen and attacked."""

import pytest

from tests.mariadb_server import NoServer
from tools.disorder.frozen import run_frozen
from tools.disorder.lifecycle import run_lifecycle
from tools.disorder.mesh import run_mesh


@pytest.mark.mariadb
@pytest.mark.timeout(240)
async def test_the_ledgers_balance_after_crashes_freezes_and_garbage() -> None:
    try:
        report = await run_mesh(10, seed=3)
    except NoServer as error:
        pytest.skip(str(error))
    assert not report.violations, str(report)


@pytest.mark.timeout(120)
async def test_a_frozen_subscriber_slows_its_publisher_and_nobody_else_and_misses_nothing() -> None:
    verdict = await run_frozen(3.0, before=2.0)
    assert not verdict.violations, str(verdict)
    assert verdict.received > 0


@pytest.mark.timeout(180)
async def test_status_database_and_process_table_agree_after_orders_at_random_and_upgrades_go_unnoticed() -> None:
    story = await run_lifecycle(12.0, seed=3)
    assert not story.violations, str(story)
    assert story.calls > 0
