"""Models of every kind of state decode what reading without a cache gives, by sampling and by both engines."""

import warnings
from typing import Any

import pytest
import torch
from helpers.architectures import tiny_config, tiny_model
from helpers.cacheless import END, TOKENIZER, UNEQUAL, cacheless, wrong_draws
from transformers import BertConfig, BertLMHeadModel

from tokenshift.analysis.cross_sampling.engines import cross_sample, engine_for
from tokenshift.analysis.cross_sampling.intervention import Intervention
from tokenshift.analysis.sampling.generators import Sampling, TransformersGenerator

SAMPLING = Sampling(top_p=1.0, max_new_tokens=7, seed=3)

KINDS: dict[str, tuple[str, dict[str, Any]]] = {  # with the engine that runs where draft is asked for
    "llama": ("draft", {}),
    "gpt2": ("draft", {}),
    "bloom": ("draft", {}),  # distances by the mask
    "mpt": ("lockstep", {}),  # distances by slots
    "gpt_neo": ("lockstep", {}),  # windows by slots, in a plain cache
    "mistral": ("lockstep", {}),
    "gemma2": ("lockstep", {}),
    "mamba": ("lockstep", {}),
    "rwkv": ("lockstep without cache", {}),  # a state of its own
    "recurrent_gemma": ("lockstep without cache", {}),  # a state in its modules
    "falcon_h1": ("lockstep", {"mamba_chunk_size": 8}),  # both in each layer
    "jamba": ("lockstep", {"attn_layer_period": 2, "attn_layer_offset": 1}),
    "bart": ("lockstep by length", {}),  # positions by slots
    "moshi": ("lockstep without cache", {}),  # a window that its cache has, and its attention has not
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:The state", "ignore:The generation config of 'BartForCausalLM'")
def test_every_kind_of_state_gives_the_tokens_of_reading_without_a_cache(kind: str) -> None:
    engine, fields = KINDS[kind]
    primary, intervention = (tiny_model(kind, seed, **fields) for seed in (0, 1))
    for model in (primary, intervention):
        model.generation_config.eos_token_id = END
    expected = [cacheless(primary, request, SAMPLING) for request in UNEQUAL]
    assert TransformersGenerator(primary, TOKENIZER, SAMPLING)(UNEQUAL) == expected
    assert engine_for(primary, intervention) == engine
    for asked in ("draft", "lockstep"):
        plan = Intervention("random", 0.5)
        responses = cross_sample(
            primary, intervention, TOKENIZER, UNEQUAL, plan=plan, sampling=SAMPLING, engine=asked, batch_size=4
        )
        assert [(response.problem_id, response.sample_id) for response in responses] == [r.row for r in UNEQUAL]
        assert wrong_draws(responses, primary, intervention, SAMPLING) == 0
    assert {switched for response in responses for switched in response.switched} == {False, True}


def test_a_slow_engine_is_told() -> None:
    model = tiny_model("rwkv")
    model.generation_config.eos_token_id = END
    with pytest.warns(UserWarning, match="the engine is 'lockstep without cache', which is slower"):
        cross_sample(model, model, TOKENIZER, UNEQUAL[:1], sampling=Sampling(max_new_tokens=1))
    llama = tiny_model("llama")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cross_sample(llama, llama, TOKENIZER, UNEQUAL[:1], sampling=Sampling(max_new_tokens=1))


def test_models_that_look_ahead_are_refused() -> None:
    config = BertConfig(**{**tiny_config("bert").to_dict(), "is_decoder": False})
    torch.manual_seed(0)
    model = BertLMHeadModel(config).eval()
    with pytest.raises(ValueError, match="is not a causal language model"):
        TransformersGenerator(model, TOKENIZER, SAMPLING)(UNEQUAL)
    with pytest.raises(ValueError, match="is not a causal language model"):
        cross_sample(model, model, TOKENIZER, UNEQUAL, sampling=SAMPLING)
