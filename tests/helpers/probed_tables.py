"""A probe's table against both models' whole logits."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from tokenshift.trainer.probe.trajectories import ProbedTrajectory, read_probed


def probe_rows(trainer: Any, step: int, kind: str = "fixed") -> list[dict[str, Any]]:
    """Rows of a probe's table."""
    table = pq.read_table(Path(trainer.args.output_dir) / "shift" / f"step_{step:06d}.parquet")
    return [row for row in table.to_pylist() if row["trajectory"] == kind]


def fixed_trajectories(trainer: Any) -> list[ProbedTrajectory]:
    return read_probed(Path(trainer.args.output_dir) / "shift" / "fixed_trajectories.parquet")


def kept(trajectory: ProbedTrajectory) -> list[int]:
    """Places in the completion of the tokens that the policy chose."""
    return [place for place, mine in enumerate(trajectory.chosen or [True] * len(trajectory.completion_ids)) if mine]


def assert_scored(
    trainer: Any, base: Any, policy: Any, *, step: int, temperature: float = 1.0, virtual: int = 0, **inputs: Any
) -> None:
    """The fixed trajectories' rows, and no others, hold the log-probabilities and the JS of both models' logits.

    Args:
        trainer: the trainer that was probed.
        base, policy: both models as they are at the probe.
        step: the probe's update.
        temperature: the trainer's.
        virtual: number of virtual tokens that both put before the prompt.
        inputs: further inputs of both models, one list by name with a tensor per trajectory.
    """
    rows = probe_rows(trainer, step)
    for model in (base, policy):
        model.eval()
    start = 0
    for index, trajectory in enumerate(fixed_trajectories(trainer)):
        ids = torch.tensor([trajectory.prompt_ids + trajectory.completion_ids])
        more = {name: values[index] for name, values in inputs.items()}
        first, places = len(trajectory.prompt_ids) - 1, kept(trajectory)
        with torch.no_grad():
            logps = [
                torch.log_softmax(
                    model(input_ids=ids, attention_mask=torch.ones_like(ids), **more).logits[0, virtual:].double()
                    / temperature,
                    -1,
                )[[first + place for place in places]]
                for model in (base, policy)
            ]
        mine = rows[start : start + len(places)]
        start += len(places)
        tokens = torch.tensor([trajectory.completion_ids[place] for place in places])
        assert [row["token_id"] for row in mine] == tokens.tolist()
        assert {row["problem_id"] for row in mine} <= {trajectory.problem_id}
        for name, logp in zip(("logp_base", "logp_rl"), logps, strict=True):
            expected = logp.gather(1, tokens.unsqueeze(1))[:, 0]
            got = torch.tensor([row[name] for row in mine], dtype=torch.float64)
            assert torch.allclose(got, expected, atol=2e-5, rtol=1e-4), name
        middle = torch.logaddexp(*logps) - torch.log(torch.tensor(2.0, dtype=torch.float64))
        js = sum(0.5 * (logp.exp() * (logp - middle)).sum(-1) for logp in logps)
        got = torch.tensor([row["js"] for row in mine], dtype=torch.float64)
        assert torch.allclose(got, torch.as_tensor(js), atol=1e-6, rtol=1e-3)
    assert start == len(rows), "tokens that the policy did not choose are scored"
