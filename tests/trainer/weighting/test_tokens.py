"""A weighting function gets the tokens of training, and its weights reach the loss."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from helpers.dynamic_training import numbered, some_constant_reward
from helpers.tiny_training import Build, digit_reward, even_digits, parameters, same
from trl import GRPOTrainer

from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer, Tokens, register_weighting
from tokenshift.trainer.weighting.calls import token_values
from tokenshift.trainer.weighting.registry import WEIGHTINGS
from tokenshift.trainer.weighting.tokens import make_tokens, on_tokens, random_tokens

NEEDS = ("js", "forward_kl", "reverse_kl", "entropy", "entropy_reference", "logp_reference")
seen: list[Tokens] = []


@register_weighting(formula="w = 1 + position / length", needs=NEEDS, varies_at_first_update=True)
def watching(tokens: Tokens) -> torch.Tensor:
    seen.append(tokens)
    return 1 + tokens.position / tokens.length


@register_weighting(formula="w = 1 + position / length", varies_at_first_update=True)
def watching_cheaply(tokens: Tokens) -> torch.Tensor:
    seen.append(tokens)
    return 1 + tokens.position / tokens.length


@register_weighting(formula="b = c * position", kind="additive", varies_at_first_update=True)
def later_is_better(tokens: Tokens, *, c: float = 0.1) -> torch.Tensor:
    return c * tokens.position


@register_weighting(formula="m = [position < last]", kind="mask", varies_at_first_update=True)
def first_tokens(tokens: Tokens, *, last: int = 3) -> torch.Tensor:
    return tokens.position < last


@register_weighting(formula="F_t = sum_{k >= t} 2^(-(k - t) / half_life) * d_k, w = clip(exp F_t, low, high)")
def future_kl(
    tokens: Tokens, *, half_life: float = 32.0, delta: float = 10.0, low: float = 1.0, high: float = 1.2
) -> torch.Tensor:
    """FIPO (arXiv 2603.19835): how the policy moved over the later tokens, those with large ratios dropped."""
    moved = tokens.logps - tokens.old_logps
    moved = moved.masked_fill(moved.exp() > delta, 0.0)
    index = torch.arange(moved.shape[1], device=moved.device)
    distance = index.unsqueeze(1) - index  # [k, t] = k - t
    discount = torch.where(distance >= 0, 2.0 ** (-distance / half_life), 0.0)
    return (moved @ discount).exp().clamp(low, high)


class Recorder(DivergenceGRPOTrainer):
    """Keeps each update's loss inputs, loss, and the loss that stock TRL makes of advantages made by hand."""

    by_hand: Callable[[dict[str, Any]], torch.Tensor] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.updates: list[dict[str, Any]] = []
        self.losses: list[tuple[float, float]] = []
        super().__init__(*args, **kwargs)

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        loss = super()._compute_loss(model, inputs)
        if self.by_hand is not None:
            expected = GRPOTrainer._compute_loss(self, model, {**inputs, "advantages": self.by_hand(inputs)})
            self.losses.append((loss.item(), expected.item()))
        return loss

    def _weight_advantages(self, inputs: dict[str, Any], logps: torch.Tensor, states: list[torch.Tensor]) -> None:
        before = inputs["advantages"].clone()
        super()._weight_advantages(inputs, logps, states)
        self.updates.append({**inputs, "before": before, "logps": logps})


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    seen.clear()
    yield
    seen.clear()


def texts(trainer: Any, ids: torch.Tensor) -> list[str]:
    return trainer.processing_class.batch_decode(ids, skip_special_tokens=True)


# What it sees --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"num_iterations": 2, "steps_per_generation": 4, "max_steps": 8},
        {"num_iterations": 2, "steps_per_generation": 4, "max_steps": 8, "dynamic_sampling": True},
        {"scale_rewards": "batch", "dynamic_sampling": True},
    ],
    ids=["stock", "dynamic sampling", "batch scale"],
)
def test_each_completion_keeps_its_own_reward(build: Build, settings: dict[str, Any]) -> None:
    functions = [some_constant_reward, digit_reward, even_digits]
    data = {"reward_funcs": functions, "train_dataset": numbered(24)}
    trainer = build(
        trainer_class=Recorder,
        trainer_kwargs=data,
        advantage_weighting="watching_cheaply",
        reward_weights=[1.0, 0.5, 0.25],
        **settings,
    )
    trainer.train()
    tokens = seen[1:]  # the first is the trial batch
    assert len(tokens) == len(trainer.updates) == settings.get("max_steps", 4)
    number = {problem["prompt"]: problem["number"] for problem in numbered(24)}
    everywhere = []
    for update, given in zip(trainer.updates, tokens, strict=True):
        completions = texts(trainer, update["completion_ids"])
        numbers = [number[text] for text in texts(trainer, update["prompt_ids"])]
        parts = [function(completions, number=numbers) for function in functions]
        expected = [a + 0.5 * b + 0.25 * c for a, b, c in zip(*parts, strict=True)]
        assert given.reward.shape == given.mask.shape
        np.testing.assert_allclose(given.reward[:, 0], expected, atol=1e-6)
        assert (given.reward == given.reward[:, :1]).all()
        everywhere += expected
    assert len(set(everywhere)) > 8, "hardly any reward differs, so the comparison says nothing"
    assert sorted({given.step for given in tokens}) == list(range(len(tokens)))


def test_a_completion_without_a_reward_has_zero(build: Build) -> None:
    def sometimes(completions: list[str], **columns: Any) -> list[float | None]:
        return [1.0 + len(text) if len(text) % 2 else None for text in completions]

    trainer = build(
        trainer_class=Recorder, trainer_kwargs={"reward_funcs": sometimes}, advantage_weighting="watching_cheaply"
    )
    trainer.train()
    rewards = torch.cat([given.reward[:, 0] for given in seen[1:]])
    lengths = [len(text) for update in trainer.updates for text in texts(trainer, update["completion_ids"])]
    assert rewards.tolist() == [1.0 + length if length % 2 else 0.0 for length in lengths]
    assert 0 < (rewards == 0).sum() < len(rewards)


@pytest.mark.parametrize("reference", ["old", "base"])
def test_statistics_are_those_of_the_reference(build: Build, reference: str) -> None:
    trainer = build(
        trainer_class=Recorder,
        advantage_weighting="watching",
        divergence="js" if reference == "base" else "k3",
        divergence_reference=reference,
        num_iterations=2,
    )
    trainer.train()
    first, *later = seen[1:]
    mask = first.mask
    # before the first update policy, rollout policy and base are one model
    for name in ("js", "forward_kl", "reverse_kl"):
        assert getattr(first, name)[mask].abs().max() < 1e-4
        assert max(getattr(given, name).max().item() for given in later) > 1e-3
    torch.testing.assert_close(first.entropy, first.entropy_reference, atol=2e-4, rtol=0)
    assert (first.entropy[mask] > 0).all()
    torch.testing.assert_close(first.logp_reference, first.logps, atol=2e-4, rtol=0)
    for given in seen[1:]:
        if reference == "base":
            assert torch.equal(given.js, given.divergence)
        else:
            torch.testing.assert_close(given.logp_reference, given.old_logps, atol=2e-4, rtol=0)


def test_values_outside_the_mask_are_neutral_and_places_count_valid_tokens() -> None:
    mask = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]).bool()
    values = torch.arange(1.0, 5.0)
    tokens = make_tokens(
        mask=mask,
        logps=-values,
        old_logps=-2 * values,
        divergence=values,
        advantage=torch.tensor([1.0, 2.0, 3.0]),
        reward=torch.tensor([0.0, 1.0, 0.5]),
        step=7,
        statistics={"js": values},
    )
    for given in (tokens.logps, tokens.old_logps, tokens.divergence, tokens.js):
        assert (given[~mask] == 0).all()
        assert given.dtype == torch.float32
    assert tokens.js[mask].tolist() == values.tolist()
    assert tokens.position.tolist() == [[0, 1, 1, 2], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert tokens.length[:, 0].tolist() == [3, 1, 1]
    assert tokens.advantage.tolist() == [[1.0] * 4, [2.0] * 4, [3.0] * 4]
    assert on_tokens(values.double(), mask).dtype == torch.float32


def test_what_was_not_asked_for_names_needs() -> None:
    tokens = random_tokens(("js",), None, signed=False)
    assert tokens.js.shape == tokens.mask.shape
    with pytest.raises(AttributeError, match=r"tokens\.entropy is there only .* needs=\('entropy',\)"):
        _ = tokens.entropy
    with pytest.raises(AttributeError, match=r"tokens has no advantages; did you mean advantage\?"):
        _ = tokens.advantages


# What becomes of what it returns -------------------------------------------------------------------------------------


def positions(inputs: dict[str, Any]) -> torch.Tensor:
    return torch.arange(inputs["completion_ids"].shape[1]).expand(inputs["completion_ids"].shape)


def added(inputs: dict[str, Any]) -> torch.Tensor:
    return inputs["advantages"].unsqueeze(1) + 0.1 * positions(inputs) * inputs["completion_mask"]


def masked(inputs: dict[str, Any]) -> torch.Tensor:
    kept = (positions(inputs) < 3) | (inputs["completion_mask"] == 0)
    return inputs["advantages"].unsqueeze(1) * kept


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
@pytest.mark.parametrize(
    ("weighting", "by_hand", "metric"),
    [("later_is_better", added, "advantage_bonus"), ("first_tokens", masked, "advantage_weight")],
)
def test_kinds_change_the_loss_as_defined(
    build: Build, loss_type: str, weighting: str, by_hand: Any, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recorder, "by_hand", staticmethod(by_hand))
    trainer = build(trainer_class=Recorder, advantage_weighting=weighting, loss_type=loss_type, num_iterations=2)
    trainer.train()
    assert len(trainer.losses) == 4
    for loss, expected in trainer.losses:
        assert loss == pytest.approx(expected, rel=1e-6, abs=1e-8)
    assert all(
        not torch.allclose(update["advantages"], update["before"].unsqueeze(1).expand_as(update["advantages"]))
        for update in trainer.updates
    )
    logged = {name for log in trainer.state.log_history for name in log if name.startswith("advantage_")}
    assert logged == {f"{metric}/{part}" for part in ("mean", "std", "min", "max", "frac_active")}
    for log, update in zip(trainer.state.log_history, trainer.updates, strict=False):
        valid = update["completion_mask"].bool()
        place = positions(update)[valid].double()
        values = 0.1 * place if metric == "advantage_bonus" else (place < 3).double()
        assert log[f"{metric}/mean"] == pytest.approx(values.mean().item(), rel=1e-5)
        active = values.abs() > 0.01 if metric == "advantage_bonus" else values != 1
        assert log[f"{metric}/frac_active"] == pytest.approx(active.double().mean().item())


@pytest.mark.parametrize(
    ("weighting", "plain"),
    [("first_tokens", lambda index: (index < 3).float()), ("later_is_better", lambda i: 0.1 * i)],
)
def test_controls_of_masks_and_added_terms(build: Build, weighting: str, plain: Any) -> None:
    additive = weighting == "later_is_better"
    values = {}
    for control in ("none", "shuffle", "mean"):
        trainer = build(trainer_class=Recorder, advantage_weighting=weighting, weight_control=control, max_steps=1)
        trainer.train()
        (update,) = trainer.updates
        before = update["before"].unsqueeze(1)
        values[control] = update["advantages"] - before if additive else update["advantages"] / before
        valid = update["completion_mask"].bool() & (before != 0)
        outside = values[control][~update["completion_mask"].bool() & (before != 0)]
        assert torch.equal(outside, torch.full_like(outside, 0.0 if additive else 1.0))
        values[control] = values[control][valid]
    expected = plain(positions(update)[valid])
    torch.testing.assert_close(values["none"], expected, atol=1e-6, rtol=0)
    assert not torch.allclose(values["shuffle"], expected)
    torch.testing.assert_close(values["shuffle"].sort().values, expected.sort().values, atol=1e-6, rtol=0)
    torch.testing.assert_close(values["mean"], expected.mean().expand_as(expected), atol=1e-6, rtol=0)


def test_a_random_share_keeps_so_many_tokens_at_random_by_seed_and_update(build: Build) -> None:
    kept, states = [], []
    for settings in ({}, {"weighting_options": {"share": 0.5}}):
        trainer = build(trainer_class=Recorder, advantage_weighting="random_share", seed=7, max_steps=3, **settings)
        trainer.train()
        states.append(parameters(trainer))
        for step, update in enumerate(trainer.updates):
            valid = update["completion_mask"].bool()
            values = (update["advantages"] / update["before"].unsqueeze(1))[valid]
            count = int(valid.sum())
            state = int(np.random.SeedSequence([7, step]).generate_state(1, dtype=np.uint64)[0] >> np.uint64(1))
            order = torch.randperm(count, generator=torch.Generator().manual_seed(state))
            expected = (order < max(1, round((0.5 if settings else 0.2) * count))).float()
            known = ~values.isnan()  # an advantage of 0 is divided by itself
            assert known.any()
            torch.testing.assert_close(values[known], expected[known])
            kept.append(expected.mean().item())
    assert kept[:3] == pytest.approx([0.2] * 3, abs=0.05)
    assert kept[3:] == pytest.approx([0.5] * 3, abs=0.05)
    assert not same(*states)


def test_a_random_share_alike_in_a_few_tokens_and_refused_where_it_is_none() -> None:
    entry = WEIGHTINGS.get("random_share")
    mask = torch.tensor([[False, True, True], [False, False, True]])
    tokens = make_tokens(
        mask=mask,
        **{name: torch.zeros(3) for name in ("logps", "old_logps", "divergence")},
        advantage=torch.ones(2),
        reward=torch.ones(2),
        step=0,
        statistics={},
    )
    assert token_values(entry, {"share": 0.2}, tokens, "a batch").tolist() == [1.0, 0.0, 0.0]
    assert token_values(entry, {"share": 0.7}, tokens, "a batch").tolist() == [1.0, 1.0, 0.0]
    for options, words in (
        ({"share": 0.0}, "share=0.0 must lie between 0 and 1"),
        ({"share": 1}, "share=1.0 must lie"),
    ):
        with pytest.raises(ValueError, match=words):
            DivergenceGRPOConfig("x", advantage_weighting="random_share", weighting_options=options, use_cpu=True)
    with pytest.raises(ValueError, match=r"weight_control='shuffle' changes nothing: random_share is random already"):
        DivergenceGRPOConfig("x", advantage_weighting="random_share", weight_control="shuffle", use_cpu=True)


def test_a_normalized_mask_keeps_the_step_size(build: Build) -> None:
    trainer = build(advantage_weighting="first_tokens", normalize_weights=True, num_iterations=2)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "advantage_weight/mean" in log]
    assert [log["advantage_weight/mean"] for log in logs] == pytest.approx([1.0] * 4, abs=1e-6)
    assert all(log["advantage_weight/max"] > 1.5 for log in logs)
    assert all(log["advantage_weight/min"] == 0 for log in logs)


def test_a_mask_that_drops_all_is_not_divided_by_zero(build: Build) -> None:
    options = {"last": 0}
    trainer = build(advantage_weighting="first_tokens", weighting_options=options, normalize_weights=True)
    trainer.train()
    assert [log["loss"] for log in trainer.state.log_history if "loss" in log] == [0.0] * 4


def test_the_completions_table_has_what_was_added(build: Build) -> None:
    trainer = build(advantage_weighting="later_is_better", log_completions=True, max_steps=2)
    trainer.train()
    columns = trainer._logs["extra"]
    assert {"bonus_mean", "bonus_max"} <= columns.keys()
    assert "weight_mean" not in columns
    assert all(value is not None and value >= 0 for value in columns["bonus_max"])


@pytest.mark.parametrize(
    "options", [{}, {"half_life": 2.0, "delta": 1.05, "low": 0.9, "high": 1.02}], ids=["published", "narrow"]
)
def test_future_kl_against_a_loop_in_float64(build: Build, options: dict[str, float]) -> None:
    trainer = build(
        trainer_class=Recorder, advantage_weighting="future_kl", weighting_options=options, num_iterations=2
    )
    trainer.train()
    chosen = {"half_life": 32.0, "delta": 10.0, "low": 1.0, "high": 1.2, **options}
    assert len(trainer.updates) == 4
    weights, dropped = [], 0
    for update in trainer.updates:
        old = update["old_per_token_logps"].double().numpy()
        moved = update["logps"].double().numpy() - old
        mask = update["completion_mask"].bool().numpy()
        before, after = (update[name].double().numpy() for name in ("before", "advantages"))
        for row, t in zip(*np.nonzero(mask), strict=True):
            future = 0.0
            for k in range(t, mask.shape[1]):
                if mask[row, k] and np.exp(moved[row, k]) <= chosen["delta"]:
                    future += 2 ** (-(k - t) / chosen["half_life"]) * moved[row, k]
                else:
                    dropped += int(mask[row, k])
            weight = float(np.clip(np.exp(future), chosen["low"], chosen["high"]))
            assert after[row, t] == pytest.approx(before[row] * weight, abs=2e-5)
            weights.append(weight)
        assert (after[~mask] == np.repeat(before[:, None], mask.shape[1], 1)[~mask]).all()
    assert chosen["low"] < np.median([w for w in weights if w not in (1.0, chosen["low"], chosen["high"])])
    assert {chosen["low"], chosen["high"]} <= set(weights), "neither bound was met"
    assert bool(dropped) == (chosen["delta"] < 2)


def test_what_goes_wrong_in_training_is_said_with_the_update(build: Build) -> None:
    @register_weighting(formula="w = 1 / (2 - step)", varies_at_first_update=True)
    def breaks_late(tokens: Tokens) -> torch.Tensor:
        return torch.ones_like(tokens.logps) / (2 - tokens.step)

    trainer = build(advantage_weighting="breaks_late")
    with pytest.raises(ValueError, match="breaks_late") as error:
        trainer.train()
    said = str(error.value)
    assert "gave inf to " in said
    assert "tokens on the batch of update 3; each value must be finite and at least 0." in said
    assert "test_tokens.py, line " in said
    assert "\n" not in said


def test_a_broken_model_is_not_the_functions_fault() -> None:
    tokens = random_tokens(("divergence",), None, signed=False)
    broken = Tokens(
        **{name: getattr(tokens, name) for name in ("old_logps", "mask", "advantage", "reward", "position", "length")},
        logps=tokens.logps * torch.nan,
        divergence=tokens.divergence * torch.nan,
        step=1,
    )
    values = token_values(WEIGHTINGS.get("sigmoid"), {"alpha": 100.0, "s": 1.0}, broken, "a batch")
    assert values.isnan().all()
