"""Controls of cross-sampling against decoding as it is defined, and budgets of effective replacements."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.architectures import tiny_model
from helpers.cacheless import END, TOKENIZER, UNEQUAL
from helpers.pocket_models import base_and_moved
from helpers.pocket_models import requests as pocket_requests
from scipy import stats

from tokenshift.analysis.cross_sampling.criterion_registry import Positions, named_criterion, rehearse
from tokenshift.analysis.cross_sampling.decoding import Decoding
from tokenshift.analysis.cross_sampling.engines import cross_sample
from tokenshift.analysis.cross_sampling.intervention import CrossResponse, Intervention
from tokenshift.analysis.cross_sampling.pilot import (
    Budget,
    Threshold,
    find_thresholds,
    read_thresholds,
)
from tokenshift.analysis.cross_sampling.sweep import SweptPolicy, sweep_cells
from tokenshift.analysis.divergence.from_logits import js_divergence
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.requests import Prompt, Request
from tokenshift.analysis.sampling.shared_noise import gumbel_noise, mixed_seed
from tokenshift.analysis.storage.run_folder import RunFolder

SAMPLING = Sampling(temperature=0.9, top_p=0.8, max_new_tokens=12, seed=5)


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return tiny_model("llama", 0), tiny_model("llama", 1)


@pytest.fixture(scope="module")
def pocket() -> tuple[Any, Any, Any]:
    return base_and_moved()


def distribution(model: Any, ids: list[int], power: float | None = None) -> np.ndarray:
    """Next-token probabilities `(V,)` at the sampling temperature, raised to a power, not truncated."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].double().numpy()
    weights = np.exp((logits - logits.max()) / SAMPLING.temperature) ** (power or 1.0)
    return weights / weights.sum()


def truncated(probabilities: np.ndarray, top_p: float) -> np.ndarray:
    """The nucleus, renormalised."""
    order = np.argsort(-probabilities, kind="stable")
    kept = order[: int(np.searchsorted(np.cumsum(probabilities[order]), top_p)) + 1]
    nucleus = np.zeros_like(probabilities)
    nucleus[kept] = probabilities[kept]
    return nucleus / nucleus.sum()


def js(p: np.ndarray, q: np.ndarray) -> float:
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        sides = [np.where(side > 0, side * np.log(side / middle), 0.0).sum() for side in (p, q)]
    return float(sum(sides) / 2)


def drawn(probabilities: np.ndarray, row: tuple[int, int], position: int, seed: int) -> int:
    noise = gumbel_noise(seed, [row], [position], torch.arange(len(probabilities))[None])[0].numpy()
    with np.errstate(divide="ignore"):
        return int(np.argmax(np.log(truncated(probabilities, SAMPLING.top_p)) + noise))


def by_definition(primary: Any, intervention: Any, request: Request, plan: Intervention) -> CrossResponse:
    """One response, a token at a time, read from its first token on."""
    response = CrossResponse(*request.row, request.prompt_ids)
    own_seed = mixed_seed(SAMPLING.seed, 2) if plan.draws == "independent" else SAMPLING.seed
    while len(response.completion_ids) < SAMPLING.max_new_tokens and END not in response.completion_ids:
        position, ids = len(response.completion_ids), request.prompt_ids + response.completion_ids
        p, q = distribution(primary, ids), distribution(intervention, ids, plan.sharpening)
        first = drawn(p, request.row, position, SAMPLING.seed)
        second = drawn(q, request.row, position, own_seed)
        score = {
            "random_disagreement": (mixed_seed(SAMPLING.seed, request.row, position, 1) / 2**64) * (first != second),
            "js_top_p": js(truncated(p, 0.7), truncated(q, 0.7)),
            "js": js(p, q),
            "all": np.inf,
        }[plan.criterion]
        switched = bool(score > plan.epsilon)
        response.completion_ids.append(second if switched else first)
        response.switched.append(switched)
        response.primary_ids.append(first)
        response.intervention_ids.append(second)
    return response


def kept(responses: Sequence[CrossResponse]) -> list[tuple[list[Any], ...]]:
    return [(r.completion_ids, r.switched, r.primary_ids, r.intervention_ids) for r in responses]


PLANS = [
    Intervention("random_disagreement", 0.5),
    Intervention("random_disagreement", 0.4, draws="independent"),
    Intervention("js_top_p", 0.3),
    Intervention("js_top_p", 0.3, draws="independent"),
    Intervention("js", 0.1, sharpening=3.0),
    Intervention("all", 0.0, sharpening=0.5, draws="independent"),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.criterion}-{plan.draws}-{plan.sharpening}")
def test_both_engines_decode_as_defined(tiny: tuple[Any, Any], plan: Intervention) -> None:
    primary, other = tiny
    intervention = primary if plan.sharpening else other
    expected = kept([by_definition(primary, intervention, request, plan) for request in UNEQUAL])
    assert any(any(first != second for first, second in zip(*draws[2:], strict=True)) for draws in expected)
    for engine, batch_size in (("draft", None), ("draft", 2), ("lockstep", None), ("lockstep", 1)):
        responses = cross_sample(
            primary,
            intervention,
            TOKENIZER,
            UNEQUAL,
            plan=plan,
            sampling=SAMPLING,
            engine=engine,
            batch_size=batch_size,
        )
        assert kept(responses) == expected, engine
        if plan.criterion == "random_disagreement":
            assert all(response.effective == response.switched for response in responses)
            disagreements = sum(sum(response.disagreed) for response in responses)
            assert 0 < sum(sum(response.switched) for response in responses) < disagreements


def test_random_disagreements_are_the_random_positions_that_change_a_token(tiny: tuple[Any, Any]) -> None:
    """At one rate both replace the same tokens, and at rate 1 the intervention alone is left."""
    for draws in ("shared", "independent"):
        for epsilon, others in ((0.5, "random"), (0.0, "all"), (1.0, "none")):
            plans = (Intervention(name, epsilon, draws=draws) for name in ("random_disagreement", others))
            ours, theirs = (cross_sample(*tiny, TOKENIZER, UNEQUAL, plan=plan, sampling=SAMPLING) for plan in plans)
            assert [r.completion_ids for r in ours] == [r.completion_ids for r in theirs]
            assert [r.effective for r in ours] == [r.effective for r in theirs]
            assert all(response.switched == response.effective for response in ours)


def test_independent_draws_differ_as_often_as_two_draws_do(tiny: tuple[Any, Any]) -> None:
    """Shared numbers make a model agree with itself; independent ones make it disagree by chance, 1 - sum p^2."""
    model, _ = tiny
    many = [Request((0, sample), [7, 30, 12]) for sample in range(2000)]
    sampling = Sampling(SAMPLING.temperature, SAMPLING.top_p, 1, seed=9)
    nucleus = truncated(distribution(model, [7, 30, 12]), SAMPLING.top_p)
    for draws, chance in (("shared", 0.0), ("independent", 1 - float((nucleus**2).sum()))):
        plan = Intervention("all", 0.0, draws=draws)
        responses = cross_sample(model, model, TOKENIZER, many, plan=plan, sampling=sampling)
        replaced = sum(response.effective[0] for response in responses)
        assert replaced == 0 if draws == "shared" else stats.binomtest(replaced, 2000, chance).pvalue > 1e-3
    tokens = np.array([response.completion_ids[0] for response in responses])
    expected = 2000 * nucleus
    likely = expected >= 5
    observed = [*(float((tokens == token).sum()) for token in likely.nonzero()[0]), float((~likely[tokens]).sum())]
    assert not nucleus[~likely].sum() or observed[-1] <= 2000
    assert stats.chisquare(observed[:-1], expected[likely] * sum(observed[:-1]) / expected[likely].sum()).pvalue > 1e-3


@pytest.mark.parametrize("top_p", [0.05, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("vocabulary", [5, 300])
def test_truncated_js_against_the_reference(top_p: float, vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    p, q = (torch.randn(40, vocabulary, generator=generator).mul(2).log_softmax(-1) for _ in range(2))
    p[0, 2:] = q[0, :2] = -torch.inf  # supports that do not meet
    p[1] = q[1] = torch.zeros(vocabulary)  # all tie
    p[2, 1:], p[2, 0] = -torch.inf, 0.0
    p, q = p.log_softmax(-1), q.log_softmax(-1)
    ids = p.argmax(-1)
    positions = Positions(p, q, ids, [(n, 0) for n in range(40)], [0] * 40, 0, ids)
    scores = named_criterion(f"js_top_p(top_p={top_p})")(positions)
    assert torch.allclose(scores, js_divergence(p.double(), q.double(), top_p=top_p).float(), atol=2e-6)
    if top_p == 0.7:
        assert torch.equal(named_criterion("js_top_p")(positions), scores)
    with pytest.raises(ValueError, match=r"js_top_p\(top_p=1.5\).*top_p=1.5 must lie in \(0, 1\]"):
        rehearse(named_criterion("js_top_p(top_p=1.5)"), 10)


def share(responses: Sequence[CrossResponse], name: str) -> float:
    return sum(sum(getattr(r, name)) for r in responses) / sum(len(r.completion_ids) for r in responses)


def test_effective_budgets_are_met_on_the_pilot(pocket: tuple[Any, Any, Any], tmp_path: Path) -> None:
    base, moved, tokenizer = pocket
    wanted = pocket_requests(tokenizer, 12)
    prompts = [Prompt(request.row[0], "", request.prompt_ids) for request in wanted]
    run = Decoding(lambda: (base, moved), tokenizer, Sampling(1.2, 1.0, 16), "draft", 1, 12, "independent")
    criteria = ("js_top_p", "random_disagreement")
    budgets = [Budget("forward", criterion, 0.0, None, "effective", 0.05) for criterion in criteria]
    budgets += [Budget("forward", "js_top_p", 0.0, None, "effective", 0.95)]
    budgets += [Budget("backward", "js", 0.0, 0.5, "effective", 0.05)]
    folder = RunFolder(tmp_path)
    thresholds = find_thresholds(folder, budgets, prompts, run)
    assert [threshold.key for threshold in thresholds] == budgets
    assert {threshold.key: threshold for threshold in read_thresholds(folder)} == dict(
        zip(budgets, find_thresholds(folder, budgets, [], run), strict=True)
    )
    for threshold in thresholds:
        plan = Intervention(threshold.criterion, threshold.epsilon, sharpening=threshold.sharpening)
        responses = run(threshold.direction, plan, wanted)
        assert share(responses, "effective") == pytest.approx(threshold.share)
        assert threshold.epsilon in [epsilon for epsilon, _ in threshold.tried]
        if threshold.met:
            assert threshold.share == pytest.approx(0.05, abs=3 / threshold.tokens), threshold
    unmet = thresholds[2]
    assert [threshold for threshold in thresholds if not threshold.met] == [unmet]
    assert unmet.share == max(share for _, share in unmet.tried)
    lowest = run("forward", Intervention("js_top_p", 0.0), wanted)
    assert unmet.share >= share(lowest, "effective") > 0.05
    assert len({epsilon for epsilon, _ in unmet.tried}) == len(unmet.tried)
    cells = sweep_cells(["forward"], criteria, [], thresholds[:3], [0.0], [0])
    assert [(cell.criterion, cell.match) for cell in cells[2:]] == [(name, "effective") for name in criteria]


def test_intervened_budgets_that_cannot_be_met_are_told_apart(pocket: tuple[Any, Any, Any], tmp_path: Path) -> None:
    """The truncated JS is exactly 0 at most positions, which are above no threshold."""
    base, moved, tokenizer = pocket
    prompts = [Prompt(request.row[0], "", request.prompt_ids) for request in pocket_requests(tokenizer, 6)]
    run = Decoding(lambda: (base, moved), tokenizer, Sampling(1.0, 0.7, 30), "draft", 1, 6)
    budgets = [Budget("forward", name, 0.0, None, "intervened", 0.9) for name in ("js_top_p", "js", "random")]
    truncated_js, whole, rule = find_thresholds(RunFolder(tmp_path), budgets, prompts, run)
    assert (truncated_js.met, whole.met, rule.met) == (False, True, True)
    at_zero = dict(truncated_js.tried)[0.0]
    assert truncated_js.share == at_zero == max(share for _, share in truncated_js.tried)
    assert whole.share == pytest.approx(0.9, rel=0.06)


def test_sharpened_arms_of_a_sweep(tmp_path: Path) -> None:
    found = [
        Threshold("forward", "js", 0.0, 0.1, 0.2, 0.1, 50, [], sharpening=2.0),
        Threshold("forward", "js", 0.0, 0.1, 0.3, 0.1, 50, []),
        Threshold("forward", "js", 0.5, 0.1, 0.4, 0.1, 50, []),
    ]
    cells = sweep_cells(["forward"], ["js"], [], found, [0.0, 0.5], [0], sharpening=[2.0])
    assert [(cell.criterion, cell.epsilon, cell.gamma, cell.sharpening) for cell in cells] == [
        ("none", None, 0.0, None),
        ("all", None, 0.0, None),
        ("all", None, 0.5, None),
        ("all", None, 0.0, 2.0),
        ("js", 0.3, 0.0, None),
        ("js", 0.4, 0.5, None),
        ("js", 0.2, 0.0, 2.0),
    ]
    assert len({cell.name for cell in cells}) == len(cells)
    assert (
        SweptPolicy("forward", "js", 0.2, 0.1, match="effective").name
        == "forward-js-effective0.10000000000000001-seed0"
    )
    old = [{**Threshold("forward", "js", 0.0, 0.1, 0.2, 0.1, 50, []).__dict__}]
    for name in ("match", "sharpening", "met"):
        del old[0][name]  # as files that were made before are
    (tmp_path / "thresholds.json").write_text(json.dumps(old))
    (threshold,) = read_thresholds(RunFolder(tmp_path))
    assert threshold.key == Budget("forward", "js", 0.0, None, "intervened", 0.1)
    assert threshold.met


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"sharpening": 0.0}, "sharpening=0.0 must be a finite number above 0"),
        ({"sharpening": float("inf")}, "sharpening=inf"),
        ({"draws": "own"}, "draws='own' is not known; choose shared or independent"),
        ({"criterion": "random_disagreement", "epsilon": 1.5}, r"epsilon=1.5 must lie in \[0, 1\]"),
    ],
)
def test_bad_plans(plan: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Intervention(**plan)
