"""Statistics that are kept while responses are sampled become the rows that scoring would have made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.token_table.kept_statistics import KeepingGenerator, KeptScorer
from tokenshift.analysis.token_table.schema import SCORED, TABLE_SCHEMA, build_table


class Letters:
    """The part of a tokenizer that a table needs."""

    def decode(self, ids: list[int]) -> str:
        return chr(97 + ids[0])


TOKENIZER: PreTrainedTokenizerBase = Letters()  # type: ignore[assignment]


def statistics(trajectories: Sequence[Trajectory]) -> dict[str, torch.Tensor]:
    """Numbers that tell every token of every response apart."""
    numbers = torch.tensor(
        [
            100 * each.problem_id + 10 * each.sample_id + position
            for each in trajectories
            for position in range(len(each.completion_ids))
        ]
    )
    found = {}
    for number, name in enumerate(SCORED):
        found[name] = numbers + number
        if TABLE_SCHEMA.field(name).type == pa.float32():
            found[name] = (numbers + number) / 7
    found["js"][0] = torch.nan
    return found


def sampled(requests: Sequence[Request]) -> tuple[list[Trajectory], dict[str, torch.Tensor]]:
    trajectories = [
        Trajectory(
            *request.row, request.prompt_ids, [(5 * request.row[0] + n) % 20 for n in range(1 + request.row[1])]
        )
        for request in requests
    ]
    return trajectories, statistics(trajectories)


class Scoring:
    """A scorer that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[Trajectory]] = []

    def table(self, trajectories: Sequence[Trajectory], kind: str) -> pa.Table:
        self.asked.append(list(trajectories))
        return build_table(trajectories, statistics(trajectories), TOKENIZER, kind)

    def top_tokens(self, trajectory: Trajectory, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        return np.array([k]), np.array([len(trajectory.completion_ids)])


def test_kept_statistics_become_rows_with_verdicts(tmp_path: Path) -> None:
    requests = [Request((problem, sample), [3, problem]) for problem in (4, 5, 9) for sample in range(3)]
    for kind in ("rl", "base"):
        generator = KeepingGenerator(sampled, tmp_path, kind)
        for start in (0, 6):
            part = requests[start : start + 6]
            assert generator(part) == [each.completion_ids for each in sampled(part)[0]]
        generator(requests[:6])  # again after a stop: the same file
    assert len(list(tmp_path.rglob("*.parquet"))) == 4
    judged: list[Any] = [
        Trajectory(*each.row, each.prompt_ids, sampled([each])[0][0].completion_ids, each.row[1] == 1)
        for each in requests
    ]
    batch = [judged[index] for index in (7, 2, 8)]  # another order than they were sampled in
    scorer = KeptScorer(tmp_path, lambda: pytest.fail("nothing is left to be read"), TOKENIZER)
    table = scorer.table(batch, "rl")
    for trajectory in batch:
        mine = table.filter(
            pa.array(
                [
                    pair == (trajectory.problem_id, trajectory.sample_id)
                    for pair in zip(table["problem_id"].to_pylist(), table["sample_id"].to_pylist(), strict=True)
                ]
            )
        )
        first = 6 * (trajectory.problem_id == 9)
        of_batch = sampled(requests[first : first + 6])[0]
        index = [(each.problem_id, each.sample_id) for each in of_batch].index(
            (trajectory.problem_id, trajectory.sample_id)
        )
        start = sum(len(each.completion_ids) for each in of_batch[:index])
        whole = statistics(of_batch)
        expected = {name: whole[name][start : start + len(trajectory.completion_ids)] for name in SCORED}
        assert mine.equals(build_table([trajectory], expected, TOKENIZER, "rl"), check_metadata=False)


def test_responses_that_nothing_was_kept_of_are_read(tmp_path: Path) -> None:
    requests = [Request((1, sample), [3]) for sample in range(3)]
    KeepingGenerator(sampled, tmp_path, "rl")(requests[:2])
    trajectories, _ = sampled(requests)
    scoring = Scoring()
    scorer = KeptScorer(tmp_path, lambda: scoring, TOKENIZER)
    scorer.table(trajectories[:2], "rl")
    assert scoring.asked == []
    changed = Trajectory(1, 0, [3], [19])  # of another run
    for batch, kind in ((trajectories, "rl"), ([changed], "rl"), (trajectories[:1], "base")):
        scorer.table(batch, kind)
        assert scoring.asked.pop() == list(batch)
    assert scorer.top_tokens(trajectories[2], 4) == (4, 3)
