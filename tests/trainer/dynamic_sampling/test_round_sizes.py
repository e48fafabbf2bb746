"""Sizes of rounds: the shortest expected time per useful group, within the batch and for every number of ranks."""

import math

import pytest
from helpers.round_simulation import as_many_as_are_missing, simulate
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tokenshift.trainer.dynamic_sampling.round_sizes import (
    LATENCY_SHARE,
    UsefulShare,
    best_round_size,
    expected_useful,
)


@pytest.mark.parametrize(("missing", "largest", "share"), [(1, 16, 0.3), (5, 20, 0.7), (40, 64, 0.5)])
def test_expected_useful_groups_are_those_of_the_binomial_distribution(
    missing: int, largest: int, share: float
) -> None:
    for size, expected in enumerate(expected_useful(missing, largest, share)):
        distribution = stats.binom(size, share)
        by_hand = sum(min(count, missing) * distribution.pmf(count) for count in range(size + 1))
        assert expected == pytest.approx(by_hand)


@given(
    st.integers(1, 32).flatmap(lambda batch: st.tuples(st.integers(1, batch), st.just(batch))),
    st.floats(0.01, 0.99),
    st.integers(2, 16),
    st.integers(1, 12),
)
def test_a_round_lies_between_what_is_missing_and_the_batch(
    groups: tuple[int, int], share: float, members: int, ranks: int
) -> None:
    missing, batch = groups
    batch *= ranks  # a batch's rows are shared equally
    size = best_round_size(missing, batch, share, members, ranks)
    assert missing <= size <= batch
    assert size * members % ranks == 0
    expected = expected_useful(missing, batch, share)

    def cost(groups: int) -> float:
        return (LATENCY_SHARE + (1 - LATENCY_SHARE) * groups / batch) / expected[groups]

    step = next(count for count in range(1, ranks + 1) if count * members % ranks == 0)
    first = math.ceil(missing / step) * step
    assert cost(size) == pytest.approx(min(cost(groups) for groups in range(first, batch + 1, step)))


def test_a_last_group_is_not_generated_alone() -> None:
    assert best_round_size(1, 512, 0.3, 16, 32) >= 8
    assert best_round_size(1, 512, 0.9, 16, 32) < best_round_size(1, 512, 0.3, 16, 32)
    assert best_round_size(512, 512, 0.3, 16, 32) == 512
    assert best_round_size(1, 1, 0.3, 16, 1) == 1


def test_the_running_share_forgets() -> None:
    share = UsefulShare()
    assert share.value == 0.5
    for _ in range(20):
        share.add(0, 32, 64)
    assert (share.useful, share.judged) == (0, 64)
    for _ in range(20):
        share.add(32, 32, 64)
    assert share.value > 0.95
    share.add(0, 10**6, 64)
    assert 0 < share.value < 0.02


def test_a_useful_group_takes_less_time_and_the_same_prompts() -> None:
    world = {"batch": 32, "share": 0.6, "members": 8, "ranks": 8, "batches": 30}
    before, after = simulate(as_many_as_are_missing, **world), simulate(best_round_size, **world)
    assert (before.filled, before.prompts) == (after.filled, after.prompts)
    rows, steps = (after.per_useful_group[which] / before.per_useful_group[which] for which in (0, 1))
    assert rows < 1.08
    assert steps < 0.75
