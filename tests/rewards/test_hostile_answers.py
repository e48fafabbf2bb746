"""No hostile answer hangs, runs anything, or is right; `make hostile-answers` has the figures of all of them."""

import json
import time
from pathlib import Path

import psutil
import pytest
from hostile_answers import HOSTILE, PLANTED

from tokenshift.rewards.pool import VerificationPool
from tokenshift.rewards.verdicts import Verdict

LIMIT = 2.0  # CPU seconds
FINDS = Path(__file__).parent / "fuzzed_answers.jsonl"


def test_there_are_enough() -> None:
    assert len({(hostile.gold, hostile.completion) for hostile in HOSTILE}) == len(HOSTILE) >= 400
    corpus = (Path(__file__).parent / "gold_answers.jsonl").read_text(encoding="utf-8")
    known = {
        row.get("completion") or f"The answer is $\\boxed{{{row['answer']}}}$."
        for row in map(json.loads, corpus.splitlines())
    }
    assert not known & {hostile.completion for hostile in HOSTILE if hostile.kind != "spoofs"}


@pytest.mark.parametrize("kind", ["towers", "factorials", "nesting", "length", "code", "place", "spoofs"])
def test_none_is_right_and_nothing_is_run(kind: str) -> None:
    Path(PLANTED).unlink(missing_ok=True)
    chosen = [hostile for hostile in HOSTILE if hostile.kind == kind]
    chosen = chosen if kind in ("code", "place", "spoofs") else chosen[::6]
    pool = VerificationPool(workers=2, limit=LIMIT, budget=3 * LIMIT)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    start = time.monotonic()
    verdicts = pool.verdicts([(hostile.gold, hostile.completion) for hostile in chosen])
    assert time.monotonic() - start < 300
    right = [hostile for hostile, verdict in zip(chosen, verdicts, strict=True) if verdict is Verdict.CORRECT]
    assert right == []
    assert Verdict.NO_GOLD not in verdicts
    pool.close()
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    assert not Path(PLANTED).exists()


def test_finds_of_the_fuzzer_stay_as_they_should_be() -> None:
    finds = [json.loads(line) for line in FINDS.read_text(encoding="utf-8").splitlines()]
    pool = VerificationPool(workers=1, limit=LIMIT)
    pairs = [(find["gold"], find["completion"]) for find in finds]
    assert [str(verdict) for verdict in pool.verdicts(pairs)] == [find["verdict"] for find in finds]
    pool.close()
