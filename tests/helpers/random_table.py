"""Per-token tables of random and of hostile rows, for oracles."""

from typing import Any

import numpy as np
import pyarrow as pa

from tokenshift.analysis.token_table.schema import TABLE_SCHEMA

EDGES = (0.0, 1e-3, 0.01, 0.1, 0.69)


def random_rows(seed: int, lengths: list[int], *, largest: float = 0.69, judged: str = "some") -> pa.Table:
    """One row per token of responses of these lengths, two per problem.

    Args:
        seed: of the numbers.
        lengths: tokens of each response.
        largest: largest JS.
        judged: `some`, `all` or `none` of the responses have a verdict.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for response, length in enumerate(lengths):
        correct = None if judged == "none" or (judged == "some" and response % 3 == 0) else bool(rng.random() < 0.5)
        for position in range(length):
            js = rng.choice(EDGES) if rng.random() < 0.1 else largest * rng.random() ** 4
            row: dict[str, Any] = {"correct": correct, "js": min(js, largest), "position": position, "length": length}
            row |= {"problem_id": response // 2, "sample_id": response % 2, "trajectory": "rl"}
            row |= {"token_id": int(rng.integers(5)), "token": "x"}
            for name in TABLE_SCHEMA.names:
                if name not in row:
                    integer = pa.types.is_integer(TABLE_SCHEMA.field(name).type)
                    row[name] = int(rng.integers(1, 12)) if integer else float(rng.random())
            rows.append(row)
    return pa.Table.from_pylist(rows, schema=TABLE_SCHEMA)
