"""Verification by the reward's two processes against math-verify, called directly in this one.

Each round verifies other answers: whole numbers, fractions and polynomials in equal parts, half of them right, and
then the same ones again.
"""

import itertools
import random
from collections.abc import Callable, Iterator

from math_verify import parse, verify

from tokenshift.rewards.pool import VerificationPool

OURS = "accuracy_reward, 2 processes"
AGAIN = "the same, answers seen before"
PLAIN = "math-verify, called directly"
ANSWERS = 300  # of a round
KINDS = ("whole numbers", "fractions", "polynomials")


def answers(seed: int, count: int = ANSWERS, kinds: tuple[str, ...] = KINDS) -> list[tuple[str, str]]:
    """Gold answers and completions, of each kind in turn; the same for the same seed."""
    numbers = random.Random(seed)
    pairs: list[tuple[str, str]] = []
    for kind in itertools.islice(itertools.cycle(kinds), count):
        right = numbers.random() < 0.5
        if kind == "whole numbers":
            number = numbers.randint(-(10**6), 10**6)
            gold, answer = str(number), str(number + (not right))
        elif kind == "fractions":
            over, under, factor = numbers.randint(1, 10**4), numbers.randint(2, 999), numbers.randint(2, 9)
            gold = rf"\frac{{{over}}}{{{under}}}"
            answer = rf"\frac{{{factor * over + (not right)}}}{{{factor * under}}}"
        else:
            a, b, c = (numbers.randint(2, 999) for _ in range(3))
            gold, answer = f"{a}x^2+{b}x+{c}", f"{c + (not right)}+{b}x+{a}x^2"
        pairs.append((gold, rf"So the answer is $\boxed{{{answer}}}$."))
    return pairs


def math_verify_alone(pairs: list[tuple[str, str]]) -> list[bool]:
    """Verdicts of math-verify on its defaults, with each gold answer in a box."""
    return [verify(parse(f"\\boxed{{{gold}}}"), parse(completion)) for gold, completion in pairs]


def verification_functions(
    pool: VerificationPool, kinds: tuple[str, ...] = KINDS, count: int = ANSWERS
) -> dict[str, Callable[[], object]]:
    """The functions that are timed, by name; each is called once a round, in this order."""

    def batches() -> Iterator[list[tuple[str, str]]]:
        return (answers(seed, count, kinds) for seed in itertools.count())

    fresh, again, plain = batches(), batches(), batches()
    return {
        OURS: lambda: pool.verdicts(next(fresh)),
        AGAIN: lambda: pool.verdicts(next(again)),
        PLAIN: lambda: math_verify_alone(next(plain)),
    }
