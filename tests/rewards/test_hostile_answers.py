"""No hostile answer hangs, runs anything, or is right; `make hostile-answers` has the figures of all of them."""

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from helpers.hostile_answers import HOSTILE, PLANTED

from tokenshift.rewards.pool import VerificationPool
from tokenshift.rewards.verdicts import Verdict

LIMIT = 1.0  # CPU seconds
EVERY = {"towers": 8, "factorials": 6, "nesting": 8, "length": 4, "code": 1, "place": 3, "spoofs": 1}
"""Of each kind, which are tried here: every eighth of the towers, and so on."""
FINDS = Path(__file__).parent / "fuzzed_answers.jsonl"


@pytest.fixture(scope="module")
def pool() -> Iterator[VerificationPool]:
    pool = VerificationPool(workers=2, limit=LIMIT, budget=3 * LIMIT)
    yield pool
    pool.close()


def test_there_are_enough() -> None:
    assert len({(hostile.gold, hostile.completion) for hostile in HOSTILE}) == len(HOSTILE) >= 400
    corpus = (Path(__file__).parent / "gold_answers.jsonl").read_text(encoding="utf-8")
    known = {
        row["completion"] if "completion" in row else f"The answer is $\\boxed{{{row['answer']}}}$."
        for row in map(json.loads, corpus.splitlines())
    }
    assert len({hostile.completion for hostile in HOSTILE} - known) >= 400, (
        "they are apart from the corpus of gold answers"
    )


@pytest.mark.parametrize("kind", EVERY)
def test_none_is_right_and_nothing_is_run(kind: str, pool: VerificationPool) -> None:
    Path(PLANTED).unlink(missing_ok=True)
    chosen = [hostile for hostile in HOSTILE if hostile.kind == kind][:: EVERY[kind]]
    verdicts = pool.verdicts([(hostile.gold, hostile.completion) for hostile in chosen])
    right = [hostile for hostile, verdict in zip(chosen, verdicts, strict=True) if verdict is Verdict.CORRECT]
    assert right == []
    assert Verdict.NO_GOLD not in verdicts
    assert verdicts.count(Verdict.KILLED) <= 3, "the budget is three limits"
    assert not Path(PLANTED).exists()


def test_finds_of_the_fuzzer_stay_as_they_should_be(pool: VerificationPool) -> None:
    finds = [json.loads(line) for line in FINDS.read_text(encoding="utf-8").splitlines()]
    verdicts = pool.verdicts([(find["gold"], find["completion"]) for find in finds])
    assert [str(verdict) for verdict in verdicts] == [find["verdict"] for find in finds]


def test_no_process_is_left(pool: VerificationPool) -> None:
    """Last: it ends those of all tests here."""
    started = {process._process.pid for process in pool._idle if process._process is not None}
    assert started
    pool.close()
    assert not started & set(psutil.pids())
