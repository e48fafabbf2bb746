"""A table of 40 tokens whose summaries can be worked out by hand."""

from typing import Any

import pyarrow as pa

from tokenshift.analysis.token_table.schema import TABLE_SCHEMA

# problem, sample, correct, JS of each token
RESPONSES: list[tuple[int, int, bool | None, list[float]]] = [
    (7, 0, True, [0.5, 0.05, *[0.0] * 7, 0.002]),
    (7, 1, False, [0.3, 0.0, 0.0, 0.0, 0.2, *[0.0] * 5]),
    (3, 0, True, [0.0005] * 8),
    (9, 0, None, [0.15, 0.02, *[0.0] * 10]),
]
MASS_BASE, MASS_RL = (0.6, 0.8, 0.9, 0.95, 1.0), (0.1, 0.7, 0.8, 0.9, 0.99)

# of the four tokens above 0.1, by JS: base entropy, overlap@1, overlap@2, base rank and base probability of RL's top-1
HIGH: dict[float, tuple[float, float, float, int, float]] = {
    0.5: (1.0, 0.0, 0.5, 2, 0.2),
    0.3: (2.0, 0.0, 0.5, 2, 0.3),
    0.2: (0.2, 1.0, 1.0, 1, 0.9),
    0.15: (0.4, 0.0, 1.0, 4, 0.005),
}


def rows() -> list[dict[str, Any]]:
    found = []
    for problem, sample, correct, js in RESPONSES:
        for position, value in enumerate(js):
            entropy, one, two, rank, probability = HIGH.get(value, (0.1, 1.0, 1.0, 1, 0.99))
            found.append(
                {
                    "problem_id": problem,
                    "sample_id": sample,
                    "trajectory": "rl",
                    "position": position,
                    "length": len(js),
                    "token_id": position,
                    "token": "\\boxed{" if (problem, sample, position) == (7, 0, 1) else chr(97 + position),
                    "correct": correct,
                    "js": value,
                    "js_top_p": value / 2,
                    "forward_kl": 2 * value,
                    "reverse_kl": 3 * value,
                    "entropy_base": entropy,
                    "entropy_rl": entropy / 2,
                    "logp_base": -1.0,
                    "logp_rl": -0.5,
                    "rank_base": 1,
                    "rank_rl": 1,
                    "top1_base": 0,
                    "top1_rl": 0,
                    "rl_top1_rank_base": rank,
                    "rl_top1_prob_base": probability,
                    **{f"overlap_{k}": one if k == 1 else two for k in (1, 2, 3, 5, 10)},
                    **{f"mass_base_{k}": m for k, m in zip((1, 2, 3, 5, 10), MASS_BASE, strict=True)},
                    **{f"mass_rl_{k}": m for k, m in zip((1, 2, 3, 5, 10), MASS_RL, strict=True)},
                }
            )
    return found


def table() -> pa.Table:
    return pa.Table.from_pylist(rows(), schema=TABLE_SCHEMA)
