"""The answers of pocket's base model: worked steps or a glance, with habits that cost it the answer.

Three choices decide a response. Early, it works step by step or answers at a glance, mostly wrong. In the middle, a
carry or a borrow can be forgotten. Late, a worked result is given exactly or rounded. Other choices (which synonym
comes next) are as uncertain and change nothing. So reinforcement learning has few tokens to change, at the start, in
the middle and at the end, and uncertainty alone does not tell which.

For a supervised control there are correct solutions in two wordings: the base's own, and one that it has never seen.
"""

import random
from dataclasses import dataclass

from tokenshift.recipes.pocket.problems import Operands, answer


@dataclass(frozen=True)
class Habits:
    """Probabilities of the base's habits.

    Attributes:
        glance: answering without working.
        glance_error: a glance being wrong.
        slip: forgetting a carry or a borrow that is due.
        rounding: rounding a worked result to tens.
    """

    glance: float = 0.4
    glance_error: float = 0.75
    slip: float = 0.10
    rounding: float = 0.25


BASE_HABITS = Habits()
FLAWLESS = Habits(glance=0.0, glance_error=0.0, slip=0.0, rounding=0.0)
"""Habits of a correct solution, for a supervised control."""


def _steps(kind: str, x: int, y: int, carried: bool) -> tuple[str, int, str, int]:
    """x + y or x - y in columns: the ones' equation, what is carried or borrowed, the tens' equation, the result.

    `carried` tells whether a carry or a borrow that is due is remembered.
    """
    x1, x0, y1, y0 = *divmod(x, 10), *divmod(y, 10)
    if kind == "sub":
        due = x0 < y0
        kept = int(due and carried)
        low, high = x0 + 10 * due - y0, x1 - y1 - kept
        return f"{x0 + 10 * due}-{y0}={low}", kept, f"{x1}-{y1}-{kept}={high}", 10 * high + low
    kept = int(x0 + y0 >= 10 and carried)
    low, high = (x0 + y0) % 10, x1 + y1 + kept
    return f"{x0}+{y0}={x0 + y0}", kept, f"{x1}+{y1}+{kept}={high}", 10 * high + low


def _column(kind: str, x: int, y: int, carried: bool, rng: random.Random) -> tuple[str, int]:
    """The column work on x + y or x - y as the base words it, and its result."""
    ones, tens = rng.choice(("ones", "units")), rng.choice(("tens", "then tens"))
    right, kept, left, value = _steps(kind, x, y, carried)
    return f"{ones} {right}, {'borrow' if kind == 'sub' else 'carry'} {kept}; {tens} {left}", value


def write_solution(kind: str, numbers: Operands, rng: random.Random, habits: Habits = BASE_HABITS) -> str:
    """One response to a problem, drawn with the given habits."""
    if rng.random() < habits.glance:
        value = answer(kind, numbers)
        if rng.random() < habits.glance_error:
            value = max(0, value + rng.choice((-20, -11, -10, -2, -1, 1, 2, 10, 11, 20)))
        opening = rng.choice(("Easy, it is plain to see: ", "Easy, one look and I say: "))
        return f"{opening}\\boxed{{{value}}}."
    opening = rng.choice(("Step by step: ", "Let us work: "))
    carried = rng.random() >= habits.slip
    if kind == "muladd":
        product = numbers[0] * numbers[1]
        work, value = _column("add", product, numbers[2], carried, rng)
        work = f"{numbers[0]}*{numbers[1]}={product}; {work}"
    else:
        work, value = _column(kind, numbers[0], numbers[1], carried, rng)
    closing = rng.choice(("So", "Thus"))
    if rng.random() < habits.rounding:
        return f"{opening}{work}. {closing} roughly \\boxed{{{(value + 5) // 10 * 10}}}."
    return f"{opening}{work}. {closing} exactly \\boxed{{{value}}}."


def write_taught_solution(kind: str, numbers: Operands, rng: random.Random) -> str:
    """A correct solution as somebody else would word it: the base's steps, in none of its phrases."""
    opening = rng.choice(("In columns,", "Taken apart,"))
    x, y = numbers[0], numbers[1]
    if kind == "muladd":
        opening = f"{opening} {x}*{y}={x * y} at first,"
        x, y = x * y, numbers[2]
    right, kept, left, value = _steps(kind, x, y, carried=True)
    passed = f"needs {kept} more" if kind == "sub" else f"sends {kept} over"
    closing = rng.choice(("results", "comes out"))
    return f"{opening} {right} at right {passed}, {left} at left; \\boxed{{{value}}} {closing}."
