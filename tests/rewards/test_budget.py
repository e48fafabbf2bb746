"""The budget of a call: what is reached depends on the requests alone, and never on who verified what first."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenshift.rewards import accuracy_reward, configure_verification
from tokenshift.rewards.accuracy import verification_pool
from tokenshift.rewards.budget import Call, Spent, check_budget
from tokenshift.rewards.pool import LIMITS_IN_BUDGET, VerificationPool
from tokenshift.rewards.process import Reply
from tokenshift.rewards.verdicts import Verdict

LIMIT = 0.5  # CPU seconds
SUM = r"\sum_{k=1}^{900}\sum_{j=1}^{900}\sum_{i=1}^{900}\sqrt{i+j+k}"
"""A sum that no verifier computes in a day."""


def endless(number: int) -> str:
    """A completion whose verification does not end; another one for each number."""
    return rf"\boxed{{{SUM}+{number}}}"


@pytest.fixture(scope="module")
def pool() -> Iterator[VerificationPool]:
    pool = VerificationPool(workers=2, limit=LIMIT, budget=2 * LIMIT)
    yield pool
    pool.close()


def test_slow_ones_are_charged_in_tenths_of_the_limit_and_quick_ones_together() -> None:
    spent = Spent(budget=20, limit=10)
    for _ in range(39):
        spent.add(0.99)
    assert not spent.is_all
    for seconds in (9.99, 9.01):
        spent.add(seconds)
    assert spent.slow == 18
    assert spent.is_all, "all together took more than twice the budget"
    slow = Spent(budget=20, limit=10)
    slow.add(10.0)
    slow.add(9.99)
    assert not slow.is_all
    slow.add(1.0)
    assert slow.is_all


COSTS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.04, 0.3, 1.0])), min_size=1, max_size=30)


@given(costs=COSTS, workers=st.integers(1, 5), seed=st.integers(0, 99))
def test_what_is_reached_depends_neither_on_workers_nor_on_who_is_first(
    costs: list[tuple[int, float]], workers: int, seed: int
) -> None:
    requests = [(f"gold {gold}", f"completion {index}") for index, (gold, _) in enumerate(costs)]
    seconds = {request: cost for request, (_, cost) in zip(requests, costs, strict=True)}

    def values(workers: int, seed: int) -> dict[tuple[str | None, str], object]:
        call = Call(requests, budget=2.0, limit=1.0)
        numbers = random.Random(seed)
        for part in (call.firsts, call.others):
            waiting, running = list(part), []
            while True:
                while len(running) < workers and waiting and not call.is_over:
                    running.append(waiting.pop(0))
                if not running:
                    break
                done = running.pop(numbers.randrange(len(running)))
                call.enter(done, Reply(Verdict.CORRECT, seconds[done]))
        return call.values()

    alone = values(1, 0)
    assert values(workers, seed) == alone
    spent = sum(seconds[request] for request, value in alone.items() if value is Verdict.CORRECT)
    assert spent < 2 * 2.0 + 1.0, "a call takes more than twice its budget and one limit"
    assert next(iter(alone)) == requests[0]
    assert alone[requests[0]] is Verdict.CORRECT


def test_firsts_of_each_gold_come_before_all_others() -> None:
    requests = [("a", "1"), ("a", "2"), ("b", "3"), ("a", "1"), (None, "4"), ("b", "5")]
    call = Call(requests, 1.0, 1.0)
    assert call.firsts == [("a", "1"), ("b", "3")]
    assert call.others == [("a", "2"), (None, "4"), ("b", "5")]


def test_a_call_ends_with_its_budget_and_another_like_it_gives_the_same(pool: VerificationPool) -> None:
    pairs = [("1", endless(index)) for index in range(40)] + [("2", r"\boxed{2}")]
    # the gold answer 2 comes early, since no other answer to it was seen
    expected = [Verdict.KILLED] * 2 + [Verdict.UNREACHED] * 38 + [Verdict.CORRECT]
    assert pool.verdicts(pairs) == expected
    processes = [process._process for process in pool._idle]
    assert pool.verdicts(pairs) == expected
    assert [process._process for process in pool._idle] == processes, "what reached the limit was verified again"
    assert pool.verdicts(pairs[5:6]) == [Verdict.KILLED], "what was not reached is not remembered"


def test_a_gold_answer_that_does_not_end_gives_none_for_all_its_completions(
    pool: VerificationPool, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [rf"\boxed{{{number}}}" for number in range(30)] + [rf"\boxed{{{SUM}}}", "no answer"]
    call = [(SUM, text) for text in texts]
    assert pool.verdicts(call) == [Verdict.NO_GOLD] * 32
    assert pool._slow_golds[SUM] == LIMIT, "it was read to the limit once"
    assert pool.verdicts([(SUM, r"\boxed{77}"), ("7", r"\boxed{7}")]) == [Verdict.NO_GOLD, Verdict.CORRECT]


def test_answers_that_are_not_reached_get_none_and_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    configure_verification(workers=1, limit=LIMIT, budget=LIMIT)
    logged: dict[str, float] = {}
    texts = [endless(1), endless(2), endless(3), r"\boxed{5}"]
    for _ in range(2):
        assert accuracy_reward(texts, ["5"] * 4, log_metric=logged.__setitem__) == [0.0, None, None, None]
    assert logged == {"verification/killed": 1.0, "verification/unreached": 3.0}
    messages = [record.getMessage() for record in caplog.records if "verify_budget" in record.getMessage()]
    assert messages == [
        "3 of 4 answers get no reward: the others of their batch took all 0.5 CPU seconds (verify_budget)."
    ]
    verification_pool().close()


def test_budgets() -> None:
    assert VerificationPool(limit=3.0).budget == 3.0 * LIMITS_IN_BUDGET
    assert VerificationPool(budget=7.0).budget == 7.0
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"budget=.* must be a positive number of CPU seconds"):
            configure_verification(budget=wrong)
        with pytest.raises(ValueError, match="verify_budget="):
            check_budget("verify_budget", wrong)
