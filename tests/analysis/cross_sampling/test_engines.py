"""Cross-sampling: both engines against each other, against plain sampling, and the mixed policy's frequencies."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.architectures import tiny_model
from helpers.cacheless import TOKENIZER, UNEQUAL, cacheless, wrong_draws
from helpers.pocket_models import THRESHOLDS, base_and_moved, requests
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from tokenshift.analysis.cross_sampling.cached_policy import masks_slots
from tokenshift.analysis.cross_sampling.criterion_registry import CRITERIA, Positions
from tokenshift.analysis.cross_sampling.draft_and_verify import CutModel, goes_on
from tokenshift.analysis.cross_sampling.engines import cross_sample, engine_for
from tokenshift.analysis.cross_sampling.intervention import CrossResponse, Intervention
from tokenshift.analysis.divergence.from_logits import entropy, js_divergence, kl_divergence, log_probabilities
from tokenshift.analysis.sampling.draws import coupled_draw
from tokenshift.analysis.sampling.generators import Sampling, TransformersGenerator
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.token_ids import encode_prompt
from tokenshift.analysis.thresholds import LOG_2


@pytest.fixture(scope="module")
def pocket() -> tuple[Any, Any, Any]:
    return base_and_moved()


def tokens(responses: list[CrossResponse]) -> list[list[int]]:
    return [response.completion_ids for response in responses]


@pytest.mark.parametrize(("criterion", "most"), [*((name, None) for name in CRITERIA), ("js", 1), ("random", 1)])
def test_engines_agree_token_for_token(pocket: tuple[Any, Any, Any], criterion: str, most: int | None) -> None:
    base, moved, tokenizer = pocket
    wanted, sampling = requests(tokenizer, 6, samples=2), Sampling(0.9, 0.95, 70, seed=3)
    plan = Intervention(criterion, THRESHOLDS[criterion], most)
    draft, step = (
        cross_sample(base, moved, tokenizer, wanted, plan=plan, sampling=sampling, engine=engine)
        for engine in ("draft", "lockstep")
    )
    for ours, theirs in zip(draft, step, strict=True):
        assert ours.completion_ids == theirs.completion_ids
        assert (ours.switched, ours.primary_ids) == (theirs.switched, theirs.primary_ids)
        assert ours.intervention_ids == theirs.intervention_ids
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-4)
        assert ours.js == pytest.approx(theirs.js, abs=1e-4, nan_ok=True)
        assert [value == value for value in ours.js] == ours.switched
        assert most is None or sum(ours.effective) <= most
    if criterion not in ("none", "position") and most is None:
        assert any(any(each.effective) for each in draft)


@settings(max_examples=8, deadline=None)
@given(
    epsilon=st.sampled_from([0.0, 1e-4, 0.003, 0.03, 0.3]),
    temperature=st.sampled_from([0.5, 1.0, 1.6]),
    top_p=st.sampled_from([0.5, 0.9, 1.0]),
    length=st.integers(1, 40),
    seed=st.integers(0, 2**40),
    gamma=st.sampled_from([0.0, 0.5, -0.5]),
)
def test_engines_agree_whatever_the_settings(
    pocket: tuple[Any, Any, Any],
    epsilon: float,
    temperature: float,
    top_p: float,
    length: int,
    seed: int,
    gamma: float,
) -> None:
    base, moved, tokenizer = pocket
    sampling, plan = Sampling(temperature, top_p, length, seed), Intervention("js", epsilon, gamma=gamma)
    wanted = requests(tokenizer, 4)
    draft = cross_sample(base, moved, tokenizer, wanted, plan=plan, sampling=sampling)
    step = cross_sample(base, moved, tokenizer, wanted, plan=plan, sampling=sampling, engine="lockstep")
    assert tokens(draft) == tokens(step)
    assert [each.switched for each in draft] == [each.switched for each in step]


@pytest.mark.parametrize("engine", ["draft", "lockstep"])
def test_none_is_the_primary_and_all_is_the_intervention(pocket: tuple[Any, Any, Any], engine: str) -> None:
    base, moved, tokenizer = pocket
    wanted, sampling = requests(tokenizer, 6), Sampling(0.9, 0.8, 60, seed=2)
    for criterion, model in (("none", base), ("all", moved)):
        plan = Intervention(criterion, 0.0)
        found = cross_sample(base, moved, tokenizer, wanted, plan=plan, sampling=sampling, engine=engine)
        assert tokens(found) == TransformersGenerator(model, tokenizer, sampling)(wanted)
    nowhere = cross_sample(base, moved, tokenizer, wanted, plan=Intervention("js", LOG_2), sampling=sampling)
    assert not any(any(each.switched) for each in nowhere)
    same = cross_sample(base, base, tokenizer, wanted, plan=Intervention("js", 0.0), sampling=sampling)
    assert not any(any(each.effective) for each in same)


def test_a_response_does_not_depend_on_its_batch(pocket: tuple[Any, Any, Any]) -> None:
    base, moved, tokenizer = pocket
    wanted, sampling = requests(tokenizer, 5, samples=2), Sampling(1.0, 1.0, 60)
    together = cross_sample(base, moved, tokenizer, wanted, plan=Intervention("js", 0.01), sampling=sampling)
    for batches in ([[each] for each in wanted], [wanted[::-1]], [wanted[:3], wanted[3:]]):
        found = {
            (each.problem_id, each.sample_id): each.completion_ids
            for batch in batches
            for each in cross_sample(base, moved, tokenizer, batch, plan=Intervention("js", 0.01), sampling=sampling)
        }
        assert [found[request.row] for request in wanted] == tokens(together)
    for size, engine in ((3, "draft"), (1, "draft"), (8, "draft"), (4, "lockstep")):  # rows that end make room
        plan = Intervention("js", 0.01)
        again = cross_sample(
            base, moved, tokenizer, wanted, plan=plan, sampling=sampling, engine=engine, batch_size=size
        )
        assert [(each.problem_id, each.sample_id) for each in again] == [request.row for request in wanted]
        assert tokens(again) == tokens(together)


def test_prompts_of_all_lengths_share_a_batch(pocket: tuple[Any, Any, Any]) -> None:
    """A long one joins short ones and the other way round; a single token is a prompt too."""
    base, moved, tokenizer = pocket
    text = encode_prompt(tokenizer, "Q: 1+1=?\nA: Step by step: ones 1+1=2, carry 0; tens 0+0+0=0. So exactly")
    wanted = [Request((n, 0), text[: 1 + (n * 7) % len(text)]) for n in range(12)]
    sampling, plan = Sampling(1.0, 1.0, 30, seed=8), Intervention("js", 0.003)
    expected = cross_sample(base, moved, tokenizer, wanted, plan=plan, sampling=sampling, engine="lockstep")
    for size in (2, 5):
        found = cross_sample(base, moved, tokenizer, wanted, plan=plan, sampling=sampling, batch_size=size)
        assert tokens(found) == tokens(expected)


def test_prompts_of_one_token_begin_while_others_go_on(pocket: tuple[Any, Any, Any]) -> None:
    """They have no cache yet."""
    base, moved, tokenizer = pocket
    text = encode_prompt(tokenizer, "Q: 1+1=?\nA: Step by step")
    wanted = [Request((n, 0), text[:size]) for n, size in enumerate((1, 20, 5, 1, 1, 1))]
    sampling, plan = Sampling(1.0, 1.0, 30, seed=8), Intervention("js", 0.003)
    expected = cross_sample(base, moved, tokenizer, wanted, plan=plan, sampling=sampling, engine="lockstep")
    found = cross_sample(base, moved, tokenizer, wanted, plan=plan, sampling=sampling, batch_size=3)
    assert tokens(found) == tokens(expected)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_learned_positions_are_used_to_the_last(batch_size: int) -> None:
    """A draft beyond them is dropped, and must not be looked up."""
    config = GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2, n_positions=24, eos_token_id=2, bos_token_id=1)
    torch.manual_seed(0)
    first, second = GPT2LMHeadModel(config).eval(), GPT2LMHeadModel(config).eval()
    tokenizer: Any = SimpleNamespace(eos_token_id=2, pad_token_id=0)
    wanted = [Request((n, 0), [5, 6, 7, 8, 9, 10][: n + 1]) for n in range(4)]
    sampling, plan = Sampling(1.0, 1.0, 20), Intervention("random", 0.9)
    expected = cross_sample(first, second, tokenizer, wanted, plan=plan, sampling=sampling, engine="lockstep")
    found = cross_sample(first, second, tokenizer, wanted, plan=plan, sampling=sampling, batch_size=batch_size)
    assert tokens(found) == tokens(expected)
    assert max(len(response.completion_ids) for response in found) == 20


def test_sliding_windows_are_decoded_in_lockstep() -> None:
    """Their caches count slots, so that none may be masked."""
    config = MistralConfig(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, sliding_window=4, max_position_embeddings=64, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    first, second = MistralForCausalLM(config).eval(), MistralForCausalLM(config).eval()
    assert not masks_slots(first)
    tokenizer: Any = SimpleNamespace(eos_token_id=2, pad_token_id=0)
    wanted = [Request((n, 0), [5, 6, 7, 8, 9, 10][: n + 2]) for n in range(3)]
    sampling, plan = Sampling(1.0, 1.0, 12), Intervention("random", 0.5)
    found = cross_sample(first, second, tokenizer, wanted, plan=plan, sampling=sampling)
    for response in found:  # against full forward passes, a token at a time
        for place, token in enumerate(response.completion_ids):
            ids = torch.tensor([response.prompt_ids + response.completion_ids[:place]])
            model = second if response.switched[place] else first
            row = [(response.problem_id, response.sample_id)]
            with torch.no_grad():
                logp = log_probabilities(model(input_ids=ids).logits[:, -1])
                assert int(coupled_draw(logp, row, [place])) == token


def test_a_temperature_that_counts_slots_is_decoded_without_padding() -> None:
    """Llama 4's queries are scaled every `floor_scale` slots of the cache: padding would count."""
    tuned = {"attn_temperature_tuning": True, "floor_scale": 16, "attn_scale": 3.0, "no_rope_layers": [0, 0]}
    first, second = (tiny_model("llama4_text", seed, **tuned) for seed in (0, 1))
    for model in (first, second):
        model.generation_config.update(eos_token_id=2, pad_token_id=0)
    assert engine_for(first, second) == "lockstep by length"
    scaled = [module for module in first.modules() if hasattr(module, "floor_scale")]
    assert {(module.floor_scale, module.attn_scale) for module in scaled} == {(16, 3.0)}
    sampling = Sampling(top_p=1.0, max_new_tokens=16, seed=3)
    with pytest.warns(UserWarning, match="the engine is 'lockstep by length'"):
        responses = cross_sample(
            first, second, TOKENIZER, UNEQUAL, plan=Intervention("random", 0.5), sampling=sampling, batch_size=4
        )
    assert max(len(response.prompt_ids + response.completion_ids) for response in responses) > 17
    assert wrong_draws(responses, first, second, sampling) == 0
    expected = [cacheless(first, request, sampling) for request in UNEQUAL]
    assert TransformersGenerator(first, TOKENIZER, sampling)(UNEQUAL) == expected


@pytest.mark.parametrize(("epsilon", "gamma"), [(0.0, 0.0), (0.69, 0.0), (0.0, 1.0)])
def test_frequencies_are_those_of_the_mixed_policy(pocket: tuple[Any, Any, Any], epsilon: float, gamma: float) -> None:
    base, moved, tokenizer = pocket
    (request,) = requests(tokenizer, 1)
    many = [Request((0, sample), request.prompt_ids) for sample in range(3000)]
    sampling = Sampling(1.4, 1.0, 1)
    plan = Intervention("js", epsilon, gamma=gamma)
    counts = Counter(
        ids[0] for ids in tokens(cross_sample(base, moved, tokenizer, many, plan=plan, sampling=sampling))
    )
    ids = torch.tensor([request.prompt_ids])
    with torch.no_grad():
        p, q = (log_probabilities(m(input_ids=ids).logits[0, -1], temperature=1.4) for m in (base, moved))
    target = torch.log_softmax((1 + gamma) * q - gamma * p, -1) if js_divergence(p, q) > epsilon else p
    expected = 3000 * target.exp()
    likely = (expected >= 5).nonzero().flatten().tolist()
    observed = [*(counts[token] for token in likely), 3000 - sum(counts[token] for token in likely)]
    wanted = [*expected[likely].tolist(), 3000 - float(expected[likely].sum())]
    if wanted[-1] < 1:
        observed[-2:], wanted[-2:] = [sum(observed[-2:])], [sum(wanted[-2:])]
    assert stats.chisquare(observed, [value * 3000 / sum(wanted) for value in wanted]).pvalue > 1e-3


def test_criteria_against_the_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(50, 30, generator=generator).mul(3).log_softmax(-1) for _ in range(2))
    p[0, 3:] = -torch.inf
    q[0, :3] = -torch.inf
    p[0] = p[0].log_softmax(-1)
    q[0] = q[0].log_softmax(-1)
    drawn = torch.randint(0, 3, (50,), generator=generator)
    other = torch.randint(0, 30, (50,), generator=generator)
    positions = Positions(p, q, drawn, [(n, 0) for n in range(50)], list(range(50)), 7, other)
    expected = {
        "js": js_divergence(p, q),
        "forward_kl": kl_divergence(p, q),
        "reverse_kl": kl_divergence(q, p),
        "entropy_primary": entropy(p),
        "entropy_intervention": entropy(q),
    }
    for name, value in expected.items():
        found = CRITERIA.get(name)(positions)
        assert torch.allclose(found[1:], value[1:], atol=1e-5), name
    assert CRITERIA.get("js")(positions)[0] == pytest.approx(LOG_2, abs=1e-5)
    assert CRITERIA.get("forward_kl")(positions)[0] > 1e6
    delta = p.gather(-1, drawn[:, None]) - q.gather(-1, drawn[:, None])
    assert torch.equal(CRITERIA.get("delta_logp")(positions), delta.squeeze(-1))
    assert CRITERIA.get("position")(positions).tolist() == [-float(n) for n in range(50)]
    numbers = CRITERIA.get("random")(positions)
    assert stats.kstest(numbers.numpy(), "uniform").pvalue > 1e-3


def test_block_lengths_follow_the_cuts() -> None:
    def length(survival: float) -> int:
        survivals = [survival]
        while goes_on(survivals) and len(survivals) < 100:
            survivals.append(survivals[-1] * survival)
        return len(survivals)

    lengths = [length(survival) for survival in (1.0, 0.99, 0.9, 0.7, 0.1)]
    assert lengths[0] == 100
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] == 1
    model = CutModel()
    for _ in range(500):
        model.learn(1, 20.0)
    assert model.rate == pytest.approx(0.05, rel=0.01)


def test_bad_input(pocket: tuple[Any, Any, Any]) -> None:
    base, moved, tokenizer = pocket
    for plan, words in (
        ({"epsilon": 0.7}, r"epsilon=0.7 must lie in \[0, ln 2\]"),
        ({"epsilon": -0.1}, "must lie in"),
        ({"criterion": "kl"}, "criterion='kl' is no criterion"),
        ({"most": -1}, "most=-1"),
        ({"gamma": -1.0}, "gamma=-1.0"),
    ):
        with pytest.raises(ValueError, match=words):
            Intervention(**plan)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="engine='fast' is not known"):
        cross_sample(base, moved, tokenizer, [], engine="fast")
    with pytest.raises(ValueError, match="A prompt has 256 tokens and a response may have"):
        cross_sample(base, moved, tokenizer, [Request((0, 0), [5] * 256)])
    with pytest.raises(ValueError, match="A prompt is empty"):
        cross_sample(base, moved, tokenizer, [Request((0, 0), [])])
    assert cross_sample(base, moved, tokenizer, []) == []
