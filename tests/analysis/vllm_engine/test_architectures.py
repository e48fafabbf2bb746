"""Pairs of other architectures than Llama, or of unlike configs, against lock-step and `transformers`, on CPU."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.architectures import perturbed, tiny_model
from helpers.pocket_models import BASE, requests
from helpers.vllm_pairs import PairOnDisk, assert_same, assert_same_table
from transformers import AutoConfig, AutoTokenizer

from tokenshift.analysis.cross_sampling.intervention import Intervention
from tokenshift.analysis.sampling.generators import Sampling, TransformersGenerator
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.token_table.engine_scoring import EngineScorer
from tokenshift.analysis.token_table.sampled_table import ScoredSampling, ScoringSampler
from tokenshift.analysis.token_table.scoring import PairScorer

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

SAMPLING = Sampling(0.9, 0.95, 40, seed=3)

SIZES = {
    "vocab_size": 61,
    "max_position_embeddings": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,  # the smallest of vLLM on a CPU
}

WINDOW = 16
"""Tokens that a sliding layer sees: prompts have 11 to 15, and responses up to 40."""


@dataclass(frozen=True)
class Case:
    """Two random models of an architecture.

    Attributes:
        model_type: as in transformers.
        js, delta_logp: thresholds that some positions pass and some do not.
        fields: of both configs; `base` and `rl` are those of one.
        attention: of `transformers`.
    """

    model_type: str
    js: float = 0.13
    delta_logp: float = 0.6
    fields: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=dict)
    rl: dict[str, Any] = field(default_factory=dict)
    attention: str | None = None


def rotary(theta: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta}}


SLIDING = {
    "sliding_window": WINDOW,
    "query_pre_attn_scalar": 32,
    "layer_types": ["sliding_attention", "full_attention"],
}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 32}

CASES = {
    "Qwen2": Case("qwen2"),
    "Qwen3": Case("qwen3"),
    # transformers' default attention leaves Gemma 2's cap on attention logits out; `eager` has it
    "Gemma 2": Case("gemma2", 0.015, 0.03, SLIDING, attention="eager"),
    "Gemma 3": Case("gemma3_text", 0.006, 0.04, SLIDING),
    "OLMoE": Case("olmoe"),
    "Qwen3-MoE": Case("qwen3_moe", fields={"moe_intermediate_size": 64}),
    "GraniteMoeHybrid": Case("granitemoehybrid", fields=MAMBA),
    "Falcon-H1": Case("falcon_h1"),
    "heads of unlike widths": Case("llama", 0.3, 1.5, base={"vocab_size": 80}, rl={"vocab_size": 72}),
    "unlike rotary angles": Case("qwen3", 0.2, 1.0, base=rotary(1e4), rl=rotary(300.0)),
    "unlike windows": Case("mistral", 0.24, 1.2, base={"sliding_window": 8}, rl={"sliding_window": 20}),
    "a window in the base": Case("mistral", 0.25, 1.2, base={"sliding_window": 8}, rl={"sliding_window": None}),
    "a window in the RL model": Case("mistral", 0.2, 1.0, base={"sliding_window": None}, rl={"sliding_window": 8}),
}


def random_pair(case: Case, folder: Path) -> PairOnDisk:
    """Two models on disk; the RL model's weights are the base's with noise, where their shapes are the same."""
    tokenizer: Any = AutoTokenizer.from_pretrained(BASE)
    for name, own in (("base", case.base), ("rl", case.rl)):
        model: Any = tiny_model(case.model_type, **(SIZES | case.fields | own))
        if name == "rl":
            torch.manual_seed(5)
            perturbed(model, 0.03)
        for saved in (model, tokenizer):
            saved.save_pretrained(folder / name)
    return PairOnDisk(folder / "base", folder / "rl", case.attention)


def written_by_rl(pair: PairOnDisk, wanted: Sequence[Request]) -> list[Trajectory]:
    """The RL model's responses by transformers."""
    completions = TransformersGenerator(pair.rl, pair.tokenizer, SAMPLING)(wanted)
    return [Trajectory(*one.row, one.prompt_ids, ids) for one, ids in zip(wanted, completions, strict=True)]


@pytest.mark.parametrize("name", CASES)
def test_cross_sampling_and_the_table(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    pair = random_pair(case, tmp_path)
    wanted = requests(pair.tokenizer, 6)
    plans = [
        (direction, plan)
        for direction in ("forward", "backward")
        for plan in (Intervention("js", case.js), Intervention("delta_logp", case.delta_logp))
    ]
    references = [pair.reference(direction, plan, wanted, SAMPLING) for direction, plan in plans]
    for reference in references:
        switched = [at for response in reference for at in response.switched]
        assert 0.1 < sum(switched) / len(switched) < 0.9
        assert max(len(response.completion_ids) for response in reference) > 2 * WINDOW
    with pair.decoder() as decode:
        for (direction, plan), reference in zip(plans, references, strict=True):
            assert_same(decode(direction, plan, wanted, SAMPLING), reference)
        sampler = ScoringSampler(
            lambda: decode.engine, ScoredSampling("rl", SAMPLING, 0.7, pair.vocabulary), pair.tokenizer
        )
        table = sampler.table(wanted, "rl")
    scorer = PairScorer(pair.base, pair.rl, pair.tokenizer, temperature=0.9, top_p=0.7)
    assert_same_table(table, scorer.table(written_by_rl(pair, wanted), "rl"))


@pytest.mark.parametrize(
    "name", ["Gemma 3", "Qwen3-MoE", "GraniteMoeHybrid", "heads of unlike widths", "unlike windows"]
)
def test_given_trajectories_are_scored_by_prefill(name: str, tmp_path: Path) -> None:
    pair = random_pair(CASES[name], tmp_path)
    wanted = requests(pair.tokenizer, 6)
    given = written_by_rl(pair, wanted)
    scorer = PairScorer(pair.base, pair.rl, pair.tokenizer, temperature=0.9, top_p=0.7)
    with pair.decoder(scores=True) as decode:
        by_engine = EngineScorer(lambda: decode.engine, pair.tokenizer, pair.vocabulary, 0.9, 0.7)
        assert_same_table(by_engine.table(given, "given"), scorer.table(given, "given"))


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        pytest.param(Case("jamba"), "cannot write with it here: AttributeError: .*selective_scan", id="Jamba"),
        pytest.param(Case("qwen3_next"), "cannot write with it here: AssertionError: .*BF16", id="Qwen3-Next"),
        pytest.param(Case("lfm2"), "wrong positions for Lfm2ForCausalLM; use engine='transformers'", id="LFM2"),
        pytest.param(
            Case(
                "qwen3",
                fields={"sliding_window": WINDOW, "layer_types": SLIDING["layer_types"], "max_window_layers": 1},
            ),
            "vLLM does not start with .*: Sliding window for some but all layers is not supported",
            id="Qwen3 with windows in some layers",
        ),
    ],
)
def test_what_vllm_cannot_run_is_refused_in_a_line(case: Case, reason: str, tmp_path: Path) -> None:
    from vllm.distributed import cleanup_dist_env_and_memory

    pair = random_pair(case, tmp_path)
    try:
        with pytest.raises(ValueError, match=reason) as refusal, pair.decoder():
            pass
    finally:  # a start that fails in this process leaves its groups of processes
        cleanup_dist_env_and_memory()
    assert "\n" not in str(refusal.value)
    assert str(pair.rl_path) in str(refusal.value)


def test_an_architecture_that_vllm_cannot_import_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose code needs a package that is not there: vLLM logs the reason, and knows nothing of the class."""
    from vllm import ModelRegistry

    from tokenshift.analysis.vllm_engine.engine import EngineModel, check_served

    monkeypatch.setattr(ModelRegistry, "_try_inspect_model_cls", lambda name: None)
    model = EngineModel("somewhere", None, AutoConfig.for_model("qwen2", architectures=["Qwen2ForCausalLM"]))
    with pytest.raises(ValueError, match="'somewhere': vLLM cannot import Qwen2ForCausalLM here"):
        check_served(model, model)
