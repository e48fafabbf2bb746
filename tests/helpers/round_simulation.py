"""Batches of dynamic sampling without a model: what a useful group costs by the way that sizes of rounds are chosen.

A group is useful with a fixed probability, and the lengths of its completions are drawn from a skewed distribution. A
round takes as many steps as its longest completion has tokens. As a script it prints the table of the documentation:

    python tests/helpers/round_simulation.py
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from tokenshift.trainer.dynamic_sampling.prompt_groups import GroupOutcome, placed_groups, round_size
from tokenshift.trainer.dynamic_sampling.round_sizes import SHORTEST_MEMORY, UsefulShare, best_round_size

Choice = Callable[[int, int, float, int, int], int]
"""(missing, batch, share, completions per prompt, ranks) -> groups of the next round."""


@dataclass
class Cost:
    """The cost of batches that were filled.

    Attributes:
        batches: number of batches.
        filled: number of useful groups in them.
        rounds: number of rounds.
        rows: number of completions generated.
        steps: sum over the rounds of the steps of the longest completion.
        prompts: the prompts taken, in order.
    """

    batches: int = 0
    filled: int = 0
    rounds: int = 0
    rows: int = 0
    steps: int = 0
    prompts: int = 0

    @property
    def per_useful_group(self) -> tuple[float, float]:
        """Completions and steps per useful group."""
        return self.rows / self.filled, self.steps / self.filled


def as_many_as_are_missing(missing: int, batch: int, share: float, members: int, ranks: int) -> int:
    """The choice that generates no surplus, which leaves a last group alone in its round."""
    return round_size(missing, members, ranks)


def simulate(
    choice: Choice, *, batch: int, share: float, members: int, ranks: int, batches: int, longest: int = 8192
) -> Cost:
    """Fill batches, and count.

    Args:
        choice: how the size of a further round is chosen.
        batch: groups of a batch.
        share: probability that a group is useful.
        members: completions per prompt.
        ranks: number of processes.
        batches: number of batches.
        longest: limit on the tokens of a completion.
    """
    cost, useful_share = Cost(), UsefulShare()
    for _ in range(batches):
        missing, count = batch, batch
        for number in range(10):
            if number:
                count = choice(missing, batch, useful_share.value, members, ranks)
            # prompts are the same whatever the rounds: their fate depends on their place in the stream alone
            streams = [random.Random(cost.prompts + index) for index in range(count)]
            kept = [stream.random() < share for stream in streams]
            lengths = [stream.lognormvariate(6.7, 0.8) for stream in streams for _ in range(members)]
            verdicts = [GroupOutcome.KEPT if useful else GroupOutcome.ALL_WRONG for useful in kept]
            useful_share.add(sum(kept), count, max(SHORTEST_MEMORY, 2 * batch))
            pairs, used = placed_groups(range(missing), verdicts)
            cost.prompts += used
            cost.rounds, cost.rows = cost.rounds + 1, cost.rows + count * members
            cost.steps += min(int(max(lengths)) + 1, longest)
            missing -= len(pairs)
            if not missing:
                break
        cost.batches, cost.filled = cost.batches + 1, cost.filled + batch - missing
    return cost


def main() -> None:
    """Print the costs before and after, as a Markdown table."""
    per_group = "completions per useful group | steps per useful group"
    print(f"| groups x completions, ranks | useful | rounds per batch | {per_group} |\n|---|---|---|---|---|")
    for batch, members, ranks, batches in ((512, 16, 32, 10), (64, 16, 8, 50), (16, 8, 1, 200)):
        for share in (0.3, 0.5, 0.8):
            cells = []
            for choice in (as_many_as_are_missing, best_round_size):
                cost = simulate(choice, batch=batch, share=share, members=members, ranks=ranks, batches=batches)
                rows, steps = cost.per_useful_group
                cells.append((f"{cost.rounds / batches:.1f}", f"{rows:.1f}", f"{steps:.0f}"))
            columns = " | ".join(f"{before} -> {after}" for before, after in zip(*cells, strict=True))
            print(f"| {batch} x {members}, {ranks} | {share:.0%} | {columns} |")


if __name__ == "__main__":
    main()
