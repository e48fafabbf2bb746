"""A model's folder has no say in what is sampled, but for the end tokens, and is told so once."""

import warnings
from typing import Any

import pytest
import torch
from helpers.pocket_models import base_and_moved, requests
from peft import LoraConfig, get_peft_model

from tokenshift.analysis.cross_sampling.engines import cross_sample
from tokenshift.analysis.cross_sampling.intervention import Intervention
from tokenshift.analysis.sampling.folder_settings import changing_settings, without_folder_settings
from tokenshift.analysis.sampling.generators import Sampling, TransformersGenerator

CHANGING: dict[str, Any] = {
    "do_sample": True,
    "num_beams": 3,
    "num_return_sequences": 2,
    "temperature": 0.2,
    "top_k": 2,
    "top_p": 0.3,
    "min_p": 0.4,
    "typical_p": 0.3,
    "epsilon_cutoff": 0.1,
    "eta_cutoff": 0.1,
    "repetition_penalty": 3.0,
    "no_repeat_ngram_size": 1,
    "bad_words_ids": [[5], [6]],
    "sequence_bias": [[[7], -20.0]],
    "suppress_tokens": [8, 9, 10],
    "begin_suppress_tokens": [11, 12],
    "forced_bos_token_id": 13,
    "forced_eos_token_id": 14,
    "exponential_decay_length_penalty": (1, 1.5),
    "guidance_scale": 2.0,
    "min_length": 200,
    "min_new_tokens": 30,
    "max_length": 3,
    "max_new_tokens": 2,
    "max_time": 0.0,
    "remove_invalid_values": True,
    "token_healing": True,
    "penalty_alpha": 0.5,
    "prompt_lookup_num_tokens": 2,
    "return_dict_in_generate": True,
    "output_scores": True,
    "use_cache": False,
    "pad_token_id": 40,
    "bos_token_id": 41,
}


@pytest.fixture(scope="module")
def pocket() -> tuple[Any, Any, Any]:
    return base_and_moved()


@pytest.mark.filterwarnings("ignore:The generation config of")
def test_no_setting_of_the_folder_changes_a_response(pocket: tuple[Any, Any, Any]) -> None:
    base, _, tokenizer = pocket
    wanted, sampling = requests(tokenizer, 4), Sampling(1.0, 0.9, 12, seed=2)
    expected = TransformersGenerator(base, tokenizer, sampling)(wanted)
    whole = base.generation_config
    try:
        for name, value in CHANGING.items():
            base.generation_config = type(whole)(eos_token_id=whole.eos_token_id)
            setattr(base.generation_config, name, value)
            assert TransformersGenerator(base, tokenizer, sampling)(wanted[:1]) == expected[:1], name
            assert getattr(base.generation_config, name) == value  # it is left as it was
        for name, value in CHANGING.items():
            setattr(base.generation_config, name, value)
        assert TransformersGenerator(base, tokenizer, sampling)(wanted) == expected
        none = Intervention("none", 0.0)
        crossed = cross_sample(base, base, tokenizer, wanted, plan=none, sampling=sampling)
        assert [response.completion_ids for response in crossed] == expected
    finally:
        base.generation_config = whole


def test_a_list_of_end_tokens_is_taken_from_the_folder(pocket: tuple[Any, Any, Any]) -> None:
    base, _, tokenizer = pocket
    wanted, sampling = requests(tokenizer, 3), Sampling(1.0, 0.9, 40, seed=2)
    before = TransformersGenerator(base, tokenizer, sampling)(wanted)
    end = before[0][3]
    base.generation_config.eos_token_id = [2, end]
    try:
        after = TransformersGenerator(base, tokenizer, sampling)(wanted)
    finally:
        base.generation_config.eos_token_id = 2
    assert after[0] == before[0][: before[0].index(end) + 1]
    for ids, shorter in zip(before, after, strict=True):
        assert shorter == ids[: len(shorter)]
        assert shorter[-1] in (2, end) or len(shorter) == 40


def test_settings_that_have_no_say_are_named(pocket: tuple[Any, Any, Any]) -> None:
    base, _, tokenizer = pocket
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TransformersGenerator(base, tokenizer, Sampling())
    base.generation_config.repetition_penalty, base.generation_config.top_k = 1.05, 20
    base.generation_config.temperature = 1.0
    try:
        assert changing_settings(base.generation_config) == {"repetition_penalty": 1.05, "top_k": 20}
        with pytest.warns(UserWarning, match=r"sets top_k=20, repetition_penalty=1.05; responses are sampled without"):
            TransformersGenerator(base, tokenizer, Sampling())
        with pytest.warns(UserWarning, match="repetition_penalty=1.05"):
            cross_sample(base, base, tokenizer, requests(tokenizer, 1), sampling=Sampling(max_new_tokens=1))
    finally:
        base.generation_config.repetition_penalty = base.generation_config.top_k = None
        base.generation_config.temperature = None


def test_adapters_are_kept_from_their_folders_settings_too(pocket: tuple[Any, Any, Any]) -> None:
    _, moved, tokenizer = pocket
    torch.manual_seed(0)
    model: Any = get_peft_model(moved, LoraConfig(target_modules="all-linear", r=2, lora_alpha=2)).eval()
    wanted, sampling = requests(tokenizer, 2), Sampling(1.0, 0.9, 20, seed=2)
    expected = TransformersGenerator(model, tokenizer, sampling)(wanted)
    model.generation_config.suppress_tokens = sorted(set(expected[0]))[-3:]
    with without_folder_settings(model):
        assert model.generation_config.suppress_tokens is None
    assert model.generation_config.suppress_tokens
    with pytest.warns(UserWarning, match="suppress_tokens"):
        assert TransformersGenerator(model, tokenizer, sampling)(wanted) == expected
