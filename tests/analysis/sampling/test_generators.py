"""Sampled responses: distributed as the model says, and the same whatever they are sampled beside."""

import sys
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.pocket_models import base_and_moved, requests
from scipy import stats

from tokenshift.analysis.divergence.from_logits import log_probabilities
from tokenshift.analysis.sampling.draws import coupled_draw
from tokenshift.analysis.sampling.generators import Sampling, TransformersGenerator, VLLMGenerator
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.shared_noise import gumbel_noise, mixed_seed


@pytest.fixture(scope="module")
def pocket() -> tuple[Any, Any, Any]:
    return base_and_moved()


def splitmix64(state: int) -> Iterator[int]:
    """As published, in Python's integers."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        yield z ^ (z >> 31)


def test_noise_is_gumbel_and_belongs_to_its_place() -> None:
    every = torch.arange(50).unsqueeze(0)
    rows, positions = [(0, 0), (5, 1), (0, 0), (0, 1), (1, 0)], [0, 700, 1, 0, 0]
    found = gumbel_noise(3, rows, positions, every)
    assert torch.equal(found[1:2], gumbel_noise(3, [(5, 1)], [700], every))
    some = torch.tensor([[7, 49], [0, 3]])
    assert torch.equal(gumbel_noise(3, rows[:2], positions[:2], some), found[:2].gather(-1, some))
    assert len({tuple(row) for row in [*found.tolist(), *gumbel_noise(4, rows, positions, every).tolist()]}) == 10
    stream = splitmix64(mixed_seed(3, (5, 1), 700))
    uniform = np.array([((next(stream) >> 11) + 0.5) * 2.0**-53 for _ in range(50)])
    assert found[1].numpy() == pytest.approx(-np.log(-np.log1p(-uniform)), rel=1e-6)
    for noise in (  # over tokens, over positions, over problems
        gumbel_noise(0, [(1, 2)], [9], torch.arange(20_000).unsqueeze(0)),
        gumbel_noise(0, [(1, 2)] * 20_000, range(20_000), torch.tensor([[5]])),
        gumbel_noise(0, [(n, 2) for n in range(20_000)], [0] * 20_000, torch.tensor([[5]])),
    ):
        values = noise.flatten().numpy()
        assert stats.kstest(values, "gumbel_r").pvalue > 1e-3
        assert np.corrcoef(values[:-1], values[1:])[0, 1] == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("top_p", [1.0, 0.95, 0.3, 1e-6])
def test_draws_are_from_the_truncated_distribution(top_p: float) -> None:
    """Narrow, wide and tied rows against the plain way: `argmax(log p + g)` over the whole vocabulary."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 500, generator=generator) * torch.linspace(0, 8, 40).unsqueeze(-1)
    logits[3, 100:] = -torch.inf
    rows, positions = [(n, 0) for n in range(40)], list(range(40))
    expected = log_probabilities(logits, temperature=0.7, top_p=top_p)
    expected = (expected + gumbel_noise(9, rows, positions, torch.arange(500).unsqueeze(0))).argmax(-1)
    found = coupled_draw(log_probabilities(logits, temperature=0.7), rows, positions, top_p=top_p, seed=9)
    assert torch.equal(found, expected)
    assert coupled_draw(torch.zeros(1, 1), [(0, 0)], [0], top_p=0.5).tolist() == [0]


def test_policies_that_share_noise_draw_the_same_where_they_can() -> None:
    """Over many places the share of different draws is below twice the total variation."""
    p, q = (torch.tensor(values) for values in ([0.5, 0.3, 0.2], [0.4, 0.35, 0.25]))
    rows, positions = [(n, 0) for n in range(20_000)], [0] * 20_000
    first, second = (coupled_draw(each.log().expand(20_000, 3), rows, positions) for each in (p, q))
    different = float((first != second).float().mean())
    assert 0.1 * 0.95 <= different <= 0.2
    for each, drawn in ((p, first), (q, second)):
        assert stats.chisquare(torch.bincount(drawn, minlength=3).numpy(), (20_000 * each).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_first_tokens_are_distributed_as_the_model_says(pocket: tuple[Any, Any, Any], top_p: float) -> None:
    model, _, tokenizer = pocket
    (request,) = requests(tokenizer, 1)
    generator = TransformersGenerator(model, tokenizer, Sampling(temperature=1.3, top_p=top_p, max_new_tokens=1))
    many = [Request((0, sample), request.prompt_ids) for sample in range(2000)]
    counts = Counter(ids[0] for ids in generator(many))
    logits = model(input_ids=torch.tensor([request.prompt_ids])).logits[0, -1]
    expected = 2000 * log_probabilities(logits, temperature=1.3, top_p=top_p).exp()
    likely = (expected >= 5).nonzero().flatten().tolist()
    observed = [counts[token] for token in likely]
    wanted = expected[likely].tolist()
    rest = 2000 - sum(observed)
    if 2000 - sum(wanted) > 1:
        observed, wanted = [*observed, rest], [*wanted, 2000 - sum(wanted)]
    else:
        assert rest <= 10
        observed[0] += rest
    wanted = [value * sum(observed) / sum(wanted) for value in wanted]
    assert stats.chisquare(observed, wanted).pvalue > 1e-3 if len(wanted) > 1 else rest == 0


def test_responses_do_not_depend_on_their_batch(pocket: tuple[Any, Any, Any]) -> None:
    model, _, tokenizer = pocket
    generator = TransformersGenerator(model, tokenizer, Sampling(top_p=0.9, max_new_tokens=90, seed=5))
    wanted = requests(tokenizer, 6, samples=2)
    together = generator(wanted)
    alone = [generator([request])[0] for request in wanted]
    backwards = generator(wanted[::-1])[::-1]
    assert together == alone == backwards
    assert together[0] != together[1]
    assert all(ids[-1] == tokenizer.eos_token_id for ids in together if len(ids) < 90)


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        Sampling(max_new_tokens=0)
    with pytest.raises(ValueError, match="seed=-1"):
        Sampling(seed=-1)
    with pytest.raises(ValueError, match="top_p=0"):
        Sampling(top_p=0)


def test_vllm_is_asked_for_each_response_with_a_seed_of_its_own(
    pocket: tuple[Any, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM itself is not installed here: what it is given is looked at."""
    asked: dict[str, Any] = {}

    class LLM:
        def __init__(self, **options: Any) -> None:
            asked["options"] = options

        def generate(self, prompts: Any, params: Any, use_tqdm: bool) -> Any:
            asked["prompts"], asked["params"] = prompts, params
            return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=(4, 2))]) for _ in prompts]

    fake = SimpleNamespace(LLM=LLM, SamplingParams=lambda **settings: SimpleNamespace(**settings))
    monkeypatch.setitem(sys.modules, "vllm", fake)
    tokenizer = pocket[2]
    generator = VLLMGenerator("org/model", "main", Sampling(0.6, 0.95, 33, seed=4), {7, 2})
    wanted = requests(tokenizer, 2, samples=2)
    assert generator(wanted) == [[4, 2]] * 4
    assert (asked["options"]["model"], asked["options"]["revision"]) == ("org/model", "main")
    assert [prompt["prompt_token_ids"] for prompt in asked["prompts"]] == [request.prompt_ids for request in wanted]
    assert {(each.temperature, each.top_p, each.max_tokens) for each in asked["params"]} == {(0.6, 0.95, 33)}
    assert all((each.ignore_eos, each.stop_token_ids) == (True, [2, 7]) for each in asked["params"])
    seeds = [each.seed for each in asked["params"]]
    assert len(set(seeds)) == 4
    generator(wanted[::-1])
    assert [each.seed for each in asked["params"]] == seeds[::-1]
