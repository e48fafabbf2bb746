"""The tokens that moved most, each in its context."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tokenshift.analysis.token_table.columns import column
from tokenshift.analysis.token_table.measure import DEFAULT_MEASURE

CONTEXT = 12
"""Number of tokens shown before and after."""


@dataclass(frozen=True)
class MovedToken:
    """A token with a high JS; probabilities are in [0, 1], JS in nats.

    Attributes:
        problem_id, sample_id, position, length: The response, the token's index in it, and its number of tokens.
        before, token, after: The token's text, and that of the tokens around it.
        js_top_p, js: JS(base, policy) of the next-token distributions at the token's position, truncated and full.
        prob_base, prob_rl: The token's probability under either model.
        top1_base, top1_rl: Text of the most probable token under either model.
    """

    problem_id: int
    sample_id: int
    position: int
    length: int
    before: str
    token: str
    after: str
    js_top_p: float
    js: float
    prob_base: float
    prob_rl: float
    top1_base: str
    top1_rl: str


def most_moved(
    table: pa.Table, decode: Callable[[int], str], count: int = 20, measure: str = DEFAULT_MEASURE
) -> list[MovedToken]:
    """The `count` rows of a per-token table with the largest JS, largest first.

    Args:
        table: Rows of whole responses, the tokens of each in order.
        decode: Returns a token id's text.
        count: Number of rows.
        measure: The column that counts as the divergence, `js_top_p` or `js`.
    """
    js = column(table, measure)
    order = np.argsort(-js, kind="stable")[:count]
    tokens = table["token"].to_pylist()
    chosen = table.take(pa.array(order)).to_pylist()
    moved = []
    for index, row in zip(order.tolist(), chosen, strict=True):
        first, last = index - row["position"], index - row["position"] + row["length"]
        moved.append(
            MovedToken(
                problem_id=row["problem_id"],
                sample_id=row["sample_id"],
                position=row["position"],
                length=row["length"],
                before="".join(tokens[max(first, index - CONTEXT) : index]),
                token=row["token"],
                after="".join(tokens[index + 1 : min(last, index + 1 + CONTEXT)]),
                js_top_p=row["js_top_p"],
                js=row["js"],
                prob_base=float(np.exp(row["logp_base"])),
                prob_rl=float(np.exp(row["logp_rl"])),
                top1_base=decode(row["top1_base"]),
                top1_rl=decode(row["top1_rl"]),
            )
        )
    return moved
