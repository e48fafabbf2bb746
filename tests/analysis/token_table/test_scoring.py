"""Trajectories scored in padded batches, against each one's full logits alone."""

from typing import Any

import pytest
import torch
from helpers.architectures import tiny_model as small_model
from helpers.exact_statistics import oracle
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenshift.analysis import score_trajectories
from tokenshift.analysis.sampling.generators import Sampling, TransformersGenerator
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.token_table.schema import SCORED, TABLE_SCHEMA
from tokenshift.recipes.pocket.make_base import make_tokenizer

PHI3 = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2, "original_max_position_embeddings": 12}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [8.0] * 8}


@pytest.fixture(scope="module")
def models(tiny_model: str) -> tuple[Any, Any, Any]:
    base, rl = (AutoModelForCausalLM.from_pretrained(tiny_model) for _ in range(2))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in rl.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return base, rl, AutoTokenizer.from_pretrained(tiny_model)


def responses(count: int, vocabulary: int) -> list[Trajectory]:
    generator = torch.Generator().manual_seed(1)

    def some(length: int) -> list[int]:
        return torch.randint(3, vocabulary, (length,), generator=generator).tolist()

    return [Trajectory(place, 0, some(2 + place % 3), some(7 * place % 11), place % 2 == 0) for place in range(count)]


@pytest.mark.parametrize("batch_tokens", [1, 40, 8192])
def test_against_full_logits(models: tuple[Any, Any, Any], batch_tokens: int) -> None:
    base, rl, tokenizer = models
    rl.train()
    trajectories = responses(8, len(tokenizer))
    table = score_trajectories(
        base, rl, trajectories, tokenizer, temperature=0.8, top_p=0.6, batch_tokens=batch_tokens, kind="x"
    )
    assert rl.training
    assert table.schema == TABLE_SCHEMA
    rows = table.to_pylist()
    assert len(rows) == sum(len(trajectory.completion_ids) for trajectory in trajectories)
    assert {row["trajectory"] for row in rows} == {"x"}
    start = 0
    for trajectory in trajectories:
        mine = rows[start : start + len(trajectory.completion_ids)]
        start += len(mine)
        assert [row["token_id"] for row in mine] == trajectory.completion_ids
        assert {row["correct"] for row in mine} <= {trajectory.correct}
        if not mine:
            continue
        ids = torch.tensor([trajectory.prompt_ids + trajectory.completion_ids])
        with torch.no_grad():
            p, q = (
                model(input_ids=ids).logits[0, len(trajectory.prompt_ids) - 1 : -1].double() / 0.8
                for model in (base, rl.eval())
            )
        expected = oracle(p, q, torch.tensor(trajectory.completion_ids), 0.6)
        for name in SCORED:
            got = torch.tensor([row[name] for row in mine], dtype=torch.float64)
            assert torch.allclose(got, expected[name].double(), atol=2e-5, rtol=1e-4), name
        rl.train()


def test_nothing_to_score(models: tuple[Any, Any, Any]) -> None:
    base, rl, tokenizer = models
    assert score_trajectories(base, rl, [], tokenizer).num_rows == 0
    assert score_trajectories(base, rl, [Trajectory(0, 0, [5], [])], tokenizer).num_rows == 0


@pytest.mark.parametrize(
    ("kind", "fields", "limit"),
    [
        ("llama", {"max_position_embeddings": 24}, 24),
        ("gpt2", {"n_positions": 24}, 24),
        ("phi3", PHI3 | {"rope_parameters": LONGROPE}, 12),
    ],
)
def test_trajectories_beyond_the_positions_are_refused(kind: str, fields: dict[str, Any], limit: int) -> None:
    """Those of either model; rotary positions would silently go on."""
    base, short, tokenizer = small_model("llama"), small_model(kind, **fields), make_tokenizer()
    fitting, longer = (Trajectory(7, 0, [5] * 4, [6] * (limit + more - 4)) for more in (0, 1))
    assert score_trajectories(base, short, [fitting], tokenizer).num_rows == limit - 4
    words = rf"^A trajectory of problem 7 has {limit + 1} tokens, but the model reads {limit}.*: leave it out"
    for pair in ((base, short), (short, base)):
        with pytest.raises(ValueError, match=words):
            score_trajectories(*pair, [fitting, longer], tokenizer)
    short.generation_config.update(eos_token_id=2, pad_token_id=0)
    generator = TransformersGenerator(short, tokenizer, Sampling(max_new_tokens=limit - 3))
    with pytest.raises(ValueError, match=rf"reads {limit} tokens.*longest prompt has 4, and with max_new_tokens="):
        generator([Request((0, 0), [5, 6, 7, 8])])


def test_bad_input(models: tuple[Any, Any, Any]) -> None:
    base, rl, tokenizer = models
    with pytest.raises(ValueError, match="problem 3 has an empty prompt"):
        score_trajectories(base, rl, [Trajectory(3, 0, [], [5])], tokenizer)
    with pytest.raises(ValueError, match="top_p=0 must lie in"):
        score_trajectories(base, rl, [Trajectory(3, 0, [5], [5])], tokenizer, top_p=0)
