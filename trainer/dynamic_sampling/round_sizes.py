"""How many groups a further round of a batch generates: as many as make the expected time per useful group shortest.

A round ends with its longest completion, so that a round of one group takes nearly as long as one of many. The time
of a round of n groups is modelled as `LATENCY_SHARE + (1 - LATENCY_SHARE) * n / batch`, in units of a whole batch's
round: the steps of the longest completion, for which every round has to wait, and what grows with the number of rows.
"""

from dataclasses import dataclass

import numpy as np

from tokenshift.trainer.dynamic_sampling.prompt_groups import round_size

LATENCY_SHARE = 0.5
"""Share of the time of a whole batch's round that a round of a single group takes as well (this project's choice)."""

SHORTEST_MEMORY = 64
"""Groups that the running share of useful ones remembers at least; for large batches it is two batches."""


@dataclass
class UsefulShare:
    """Running share of the groups that are useful, which forgets the oldest ones gradually.

    Attributes:
        useful: number of useful groups, weighted by their age.
        judged: number of all groups, weighted by their age.
    """

    useful: float = 0.0
    judged: float = 0.0

    @property
    def value(self) -> float:
        """The share, strictly between 0 and 1: one useful and one useless group are added to those seen."""
        return (self.useful + 1) / (self.judged + 2)

    def add(self, useful: int, judged: int, memory: int) -> None:
        """Count the groups of a round.

        Args:
            useful: number of useful groups.
            judged: number of all groups.
            memory: number of groups that are remembered; older ones fade.
        """
        self.useful, self.judged = self.useful + useful, self.judged + judged
        if self.judged > memory:
            self.useful, self.judged = self.useful * memory / self.judged, float(memory)


def expected_useful(missing: int, largest: int, share: float) -> list[float]:
    """Expected number of useful groups among the first n, counted up to `missing`, for n = 0, ..., `largest`.

    Args:
        missing: number of groups that are needed.
        largest: the largest n.
        share: probability that a group is useful.
    """
    chances = np.zeros(missing)  # of 0, ..., missing - 1 useful groups among those so far
    chances[0] = 1.0
    some_missing = 1.0  # their sum, taken step by step, so that every processor finds the same number
    expected = [0.0]
    for _ in range(largest):
        expected.append(expected[-1] + share * some_missing)
        hits = chances * share
        some_missing = max(some_missing - float(hits[-1]), 0.0)
        chances -= hits
        chances[1:] += hits[:-1]
    return expected


def best_round_size(missing: int, batch: int, share: float, num_generations: int, ranks: int) -> int:
    """The number of groups of a further round, of which the first `missing` useful ones are used.

    Args:
        missing: groups that the batch still needs.
        batch: groups of the whole batch, which bounds the number: a first round of that size has fitted into memory.
        share: probability that a group is useful.
        num_generations: completions per prompt.
        ranks: number of processes, which share a round's rows equally.

    Returns:
        The number with the shortest expected time per useful group; the smallest one where several have it.
    """
    smallest = round_size(missing, num_generations, ranks)
    sizes = range(smallest, max(smallest, batch) + 1, round_size(1, num_generations, ranks))
    expected = expected_useful(missing, sizes[-1], share)
    return min(sizes, key=lambda size: (LATENCY_SHARE + (1 - LATENCY_SHARE) * size / batch) / expected[size])
