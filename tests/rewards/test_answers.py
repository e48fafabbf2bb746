"""The answers of completions, and which of them vote together."""

from collections.abc import Iterator

import pytest

from tokenshift.rewards import configure_verification
from tokenshift.rewards.accuracy import verification_pool
from tokenshift.rewards.answers import extracted_answers, voted_answers
from tokenshift.rewards.pool import VerificationPool

LIMIT = 3.0  # seconds


@pytest.fixture(scope="module", autouse=True)
def _pool() -> Iterator[None]:
    configure_verification(workers=1, limit=LIMIT)
    yield
    verification_pool().close()


def test_answers_are_those_that_verification_takes() -> None:
    texts = [r"So \boxed{35}.", "So 35.", r"\boxed{}", r"\boxed{35", r"\boxed{\frac{1}{2}}", r"\boxed{12\text{ cm}}"]
    assert extracted_answers(texts) == ["35", None, None, None, r"\frac{1}{2}", r"12\text{ cm}"]
    assert extracted_answers([[{"role": "assistant", "content": r"\boxed{7}"}]]) == ["7"]
    # a first look must not be taken for a verdict, nor a verdict for an answer
    assert verification_pool().verdicts([("35", texts[0])]) == ["correct"]
    assert extracted_answers(texts[:1]) == ["35"]


def test_equal_answers_vote_together() -> None:
    answers = ["3", None, r"\frac{1}{2}", "0.5", "1/2", "03", "4", "3", "x^2+2x+1", "(x+1)^2"]
    assert voted_answers(answers, [False] * 10) == [0, None, 1, 1, 1, 0, 2, 0, 3, 3]
    # what equals the gold answer is one, however it is written
    assert voted_answers(["0.5", "7", r"\frac{1}{2}", None], [True, False, True, True]) == [0, 1, 0, 0]
    assert voted_answers([], []) == []


def test_integers_are_compared_without_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VerificationPool, "verdicts", lambda *a: pytest.fail("was verified"))
    assert voted_answers(["12", "-12", "012", "12"], [False] * 4) == [0, 1, 0, 0]
