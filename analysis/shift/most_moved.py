"""The tokens that moved most, each in its context."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tokenshift.analysis.token_table.columns import column

CONTEXT = 12
"""Tokens shown before and after."""


@dataclass(frozen=True)
class MovedToken:
    """A token with a high JS; probabilities are in [0, 1], JS in nats.

    Attributes:
        problem_id, sample_id, position, length: where it stands.
        before, token, after: its text, and that of the tokens around it.
        js: JS(base, policy) of the next-token distributions there.
        prob_base, prob_rl: the token's probability under either.
        top1_base, top1_rl: the most probable token's text under either.
    """

    problem_id: int
    sample_id: int
    position: int
    length: int
    before: str
    token: str
    after: str
    js: float
    prob_base: float
    prob_rl: float
    top1_base: str
    top1_rl: str


def most_moved(table: pa.Table, decode: Callable[[int], str], count: int = 20) -> list[MovedToken]:
    """The `count` rows of a per-token table with the largest JS, largest first.

    Args:
        table: whole responses, each one's tokens in order.
        decode: a token id's text.
        count: how many.
    """
    js = column(table, "js")
    order = np.argsort(-js, kind="stable")[:count]
    tokens = table["token"].to_pylist()
    chosen = table.take(pa.array(order)).to_pylist()
    found = []
    for place, row in zip(order.tolist(), chosen, strict=True):
        first, last = place - row["position"], place - row["position"] + row["length"]
        found.append(
            MovedToken(
                problem_id=row["problem_id"],
                sample_id=row["sample_id"],
                position=row["position"],
                length=row["length"],
                before="".join(tokens[max(first, place - CONTEXT) : place]),
                token=row["token"],
                after="".join(tokens[place + 1 : min(last, place + 1 + CONTEXT)]),
                js=row["js"],
                prob_base=float(np.exp(row["logp_base"])),
                prob_rl=float(np.exp(row["logp_rl"])),
                top1_base=decode(row["top1_base"]),
                top1_rl=decode(row["top1_rl"]),
            )
        )
    return found
