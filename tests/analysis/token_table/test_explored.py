"""The most probable tokens of responses, where a run was stopped and the next one shows others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import PartialState

from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.token_table.explored import explored_responses, read_explored, write_explored


def test_a_stopped_run_that_showed_others_gives_each_response_its_own_tokens(tmp_path: Path) -> None:
    trajectories = {"rl": [Trajectory(problem, 0, [1], [10 + problem]) for problem in range(8)]}
    folder, left = RunFolder(tmp_path), 2

    def top_tokens(trajectory: Trajectory) -> Any:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return np.array([trajectory.completion_ids]), np.zeros((1, 1))

    first, second = (explored_responses(trajectories, count) for count in (4, 6))
    assert [trajectory.problem_id for _, trajectory in first[:2]] != [t.problem_id for _, t in second[:2]]
    with pytest.raises(KeyboardInterrupt):
        write_explored(folder, first, top_tokens, PartialState(cpu=True))
    left = 10
    for _ in range(2):  # the second time nothing is left to do but to tidy up
        write_explored(folder, second, top_tokens, PartialState(cpu=True))
        arrays = read_explored(folder)
        assert {key[1]: int(ids[0, 0]) - 10 for key, (ids, _) in arrays.items()} == {
            trajectory.problem_id: trajectory.problem_id for _, trajectory in second
        }
        assert not folder.units("explorer").exists()
        folder.units("explorer").mkdir(parents=True)
    assert left == 6
