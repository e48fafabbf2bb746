"""Figures of `accuracy_reward` beside TRL's reward and math-verify alone, on the corpus and on reference solutions.

    python tests/rewards/compare_verifiers.py [PARQUET]

The corpus is `gold_answers.jsonl`, without its decimal commas, which the others have no setting for. PARQUET is a file
with the columns `solution` (a text with the answer in a box), `answer` and, for the exchange of golds, `type`.
"""

import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from math_verify import parse, verify
from trl.rewards import accuracy_reward as trl_reward

from tokenshift.rewards import accuracy_reward, configure_verification

Pairs = list[tuple[str, str]]
"""Gold answers, and completions."""


def ours(pairs: Pairs) -> list[float | None]:
    """The rewards of this project."""
    return accuracy_reward([text for _, text in pairs], [gold for gold, _ in pairs])


def trl(pairs: Pairs) -> list[float | None]:
    """The rewards of TRL."""
    return trl_reward([[{"role": "assistant", "content": text}] for _, text in pairs], [gold for gold, _ in pairs])


def math_verify_alone(pairs: Pairs) -> list[float | None]:
    """math-verify by its defaults, with the gold answer in a box."""
    golds = {gold: parse(f"\\boxed{{{gold}}}") for gold, _ in pairs}
    return [float(verify(golds[gold], parse(text))) if golds[gold] else None for gold, text in pairs]


VERIFIERS: dict[str, Callable[[Pairs], list[float | None]]] = {
    "accuracy_reward": ours,
    "TRL's accuracy_reward": trl,
    "math-verify alone, gold boxed": math_verify_alone,
}


def print_corpus() -> None:
    """Print false accepts and false rejects on the corpus."""
    lines = (Path(__file__).parent / "gold_answers.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["form"] != "decimal comma"]
    pairs = [(row["gold"], row.get("completion", f"So it is $\\boxed{{{row.get('answer')}}}$.")) for row in rows]
    right = sum(row["verdict"] for row in rows)
    print(f"corpus: {right} right answers, {len(rows) - right} near misses")
    for name, verifier in VERIFIERS.items():
        counts = Counter((row["verdict"], reward) for row, reward in zip(rows, verifier(pairs), strict=True))
        print(
            f"  {name}: {counts[0, 1.0]} false accepts, {counts[1, 0.0]} false rejects, "
            f"{counts[0, None] + counts[1, None]} without a reward"
        )


def print_solutions(file: str) -> None:
    """Print how many reference solutions and boxed golds are right, and each acceptance of an exchanged gold."""
    rows = pq.read_table(file).to_pylist()
    by_solution = [(row["answer"], row["solution"]) for row in rows]
    for name, verifier in VERIFIERS.items():
        rewards = Counter(verifier(by_solution))
        boxed = Counter(verifier([(row["answer"], f"It is $\\boxed{{{row['answer']}}}$.") for row in rows]))
        print(f"  {name}: solutions {dict(rewards)}, golds in a box {dict(boxed)}")
    for (gold, _), row, reward in zip(by_solution, rows, ours(by_solution), strict=True):
        if reward != 1:
            print(f"  missed: row {row.get('row')}, gold {gold!r}, reward {reward}")
    exchanged: Pairs = []
    for kind in sorted({row.get("type") or "" for row in rows}):
        golds = [row["answer"] for row in rows if (row.get("type") or "") == kind]
        others = random.Random(0).sample(golds, len(golds))
        exchanged += [
            (gold, f"\\boxed{{{other}}}") for gold, other in zip(golds, others, strict=True) if gold != other
        ]
    accepted = [pair for pair, reward in zip(exchanged, ours(exchanged), strict=True) if reward == 1]
    print(f"  exchanged golds: {len(exchanged)}, accepted {len(accepted)}")
    for gold, text in accepted:
        print(f"    {gold!r} <- {text}")


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # math-verify's words on each timeout
    configure_verification(workers=2, limit=30.0)
    print_corpus()
    for file in sys.argv[1:]:
        print(file)
        print_solutions(file)
