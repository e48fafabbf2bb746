"""The step functions of the rooms above, without vLLM, against what these rooms do alone."""

import json
import math
from dataclasses import asdict

import pytest
import torch

from tokenshift.analysis.cross_sampling.intervention import Intervention, decide
from tokenshift.analysis.cross_sampling.pair_engine import CrossSettings, cross_step
from tokenshift.analysis.divergence.from_logits import log_probabilities
from tokenshift.analysis.divergence.lm_head import LMHead
from tokenshift.analysis.divergence.token_statistics import statistics_of_logits, token_statistics
from tokenshift.analysis.sampling.draws import coupled_draw
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.token_table.engine_scoring import scored_rows, top_rows
from tokenshift.analysis.token_table.sampled_table import ScoredSampling, scored_draw_step
from tokenshift.analysis.token_table.schema import SCORED
from tokenshift.analysis.vllm_engine.generator import draw_step

ROWS = [(1, 0), (1, 1), (4, 0), (7, 3)]
POSITIONS = [0, 3, 9, 2]
SAMPLING = Sampling(0.8, 0.9, 20, seed=5)


def logits(width_base: int = 23, width_rl: int = 23) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "base": 2 * torch.randn(4, width_base, generator=generator),
        "rl": 2 * torch.randn(4, width_rl, generator=generator),
    }


@pytest.mark.parametrize(
    ("primary", "intervention", "plan"),
    [
        ("base", "rl", Intervention("js", 0.05)),
        ("rl", "base", Intervention("js_top_p(top_p=0.6)", 0.05, gamma=0.5, draws="independent")),
        ("rl", "base", Intervention("random", 0.5, most=1)),
        ("base", "base", Intervention("entropy_primary", 1.0, sharpening=3.0)),
    ],
)
def test_cross_sampling_decides_as_it_does_alone(primary: str, intervention: str, plan: Intervention) -> None:
    given, replaced = logits(width_rl=29), [0, 1, 0, 2]
    settings = CrossSettings(primary, intervention, SAMPLING, plan, 23)
    assert CrossSettings.from_text(settings.text) == settings
    result = cross_step(given, ROWS, POSITIONS, replaced, settings.text)
    p, q = (log_probabilities(given[name][:, :23], temperature=0.8) for name in (primary, intervention))
    alone = decide(p, q, ROWS, POSITIONS, SAMPLING, plan)
    free = [plan.most is None or count < plan.most for count in replaced]
    switched = [one and may for one, may in zip(alone.switched, free, strict=True)]
    assert result.record["switched"].tolist() == switched
    for name in ("primary_ids", "intervention_ids", "scores"):
        assert result.record[name].tolist() == getattr(alone, name)
    chosen = zip(switched, alone.intervention_ids, alone.primary_ids, strict=True)
    assert result.tokens.tolist() == [other if switch else own for switch, other, own in chosen]
    for js, whole, switch in zip(result.record["js"].tolist(), alone.js, switched, strict=True):
        assert js == whole if switch else math.isnan(js)
    assert (result.replaced is None) == (plan.most is None)
    if result.replaced is not None:
        different = [token != own for token, own in zip(result.tokens.tolist(), alone.primary_ids, strict=True)]
        assert result.replaced.tolist() == [
            switch and other for switch, other in zip(switched, different, strict=True)
        ]


def test_one_model_draws_as_it_does_alone() -> None:
    given = logits()["rl"]
    result = draw_step({"policy": given}, ROWS, POSITIONS, [0] * 4, json.dumps(asdict(SAMPLING)))
    expected = coupled_draw(log_probabilities(given, temperature=0.8), ROWS, POSITIONS, top_p=0.9, seed=5)
    assert torch.equal(result.tokens, expected)
    assert not result.record


@pytest.mark.parametrize("top_p", [1.0, 0.7])
@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_statistics_of_logits_are_those_of_hidden_states(top_p: float, temperature: float) -> None:
    torch.manual_seed(0)
    hidden = [torch.randn(9, 6) for _ in range(2)]
    heads = [LMHead(torch.randn(200, 6)) for _ in range(2)]
    ids, options = torch.randint(200, (9,)), {"outputs": SCORED, "temperature": temperature, "top_p": top_p}
    expected = token_statistics(*hidden, *heads, ids, **options)  # type: ignore[arg-type]
    given = [states @ head.weight.t() for states, head in zip(hidden, heads, strict=True)]
    kept = [values.clone() for values in given]
    statistics = statistics_of_logits(*given, ids, **options)  # type: ignore[arg-type]
    assert all(torch.equal(values, before) for values, before in zip(given, kept, strict=True))
    assert list(statistics) == list(SCORED)
    for name in SCORED:
        assert statistics[name].dtype == expected[name].dtype, name
        torch.testing.assert_close(statistics[name], expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_pass_that_samples_scores_what_it_takes() -> None:
    given = logits(width_rl=29)
    settings = ScoredSampling("base", SAMPLING, 0.7, 23)
    assert ScoredSampling.from_text(settings.text) == settings
    result = scored_draw_step(given, ROWS, POSITIONS, [0] * 4, settings.text)
    assert torch.equal(
        result.tokens,
        coupled_draw(log_probabilities(given["base"], temperature=0.8), ROWS, POSITIONS, top_p=0.9, seed=5),
    )
    scored = scored_rows(given, result.tokens, json.dumps({"vocabulary": 23, "temperature": 0.8, "top_p": 0.7}))
    assert result.record.keys() == scored.keys() == set(SCORED)
    assert all(torch.equal(result.record[name], scored[name]) for name in SCORED)


def test_top_tokens_of_both_and_what_either_thinks_of_them() -> None:
    given = logits(width_rl=29)
    top = top_rows(given, torch.zeros(4), json.dumps({"vocabulary": 23, "temperature": 1.0, "top_p": 0.7, "k": 3}))
    logp = [torch.log_softmax(given[name][:, :23], -1) for name in ("base", "rl")]
    for listed in range(2):
        ids = top["ids"][:, listed]
        assert torch.equal(ids, logp[listed].topk(3).indices)
        for model in range(2):
            torch.testing.assert_close(top["logp"][:, listed, model], logp[model].gather(-1, ids))
