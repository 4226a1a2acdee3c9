"""Rate budgets on a real server."""

import asyncio

import pytest

from pipeline.limits import Budget
from tests.support import bus


async def test_slots_are_handed_out_in_turn_at_the_spacing(valkey: str) -> None:
    async with bus.context(valkey) as context:
        budgets = [Budget(context.redis, context.topics, "shared", 2.0) for _process in range(2)]
        waits = [await budgets[number % 2].take() for number in range(4)]
    assert waits == pytest.approx([0.0, 2.0, 4.0, 6.0], abs=0.5)


async def test_budgets_of_other_names_do_not_wait_for_each_other(valkey: str) -> None:
    async with bus.context(valkey) as context:
        for name in ("one", "other"):
            assert await Budget(context.redis, context.topics, name, 60.0).take() == 0.0


async def test_line_that_is_too_long_is_refused_and_takes_no_slot(valkey: str) -> None:
    async with bus.context(valkey) as context:
        budget = Budget(context.redis, context.topics, "long", 10.0)
        assert await budget.take() == 0.0
        assert await budget.take(longest_wait_s=5.0) is None
        assert await budget.take(longest_wait_s=15.0) == pytest.approx(10.0, abs=0.5)


async def test_hold_moves_the_next_slot_away_and_never_nearer(valkey: str) -> None:
    async with bus.context(valkey) as context:
        budget = Budget(context.redis, context.topics, "held", 1.0)
        await budget.take()
        await budget.hold(5.0)
        assert await budget.take() == pytest.approx(5.0, abs=0.5)
        await budget.hold(1.0)
        assert await budget.take() == pytest.approx(6.0, abs=0.5)


async def test_spent_budget_is_forgotten_once_it_is_free_again(valkey: str) -> None:
    async with bus.context(valkey) as context:
        await Budget(context.redis, context.topics, "short", 0.05).take()
        async with asyncio.timeout(5):
            while await context.redis.keys("limit:*"):
                await asyncio.sleep(0.05)
