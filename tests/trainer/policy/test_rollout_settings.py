"""Settings by which rollouts would be sampled otherwise than they are scored."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from helpers.tiny_training import SETTINGS, Build, digit_reward
from transformers import AutoModelForCausalLM, GenerationConfig

from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer
from tokenshift.trainer.policy.rollout_settings import unscored_settings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"temperature": 0.05}, r"sets temperature=0.05, but temperature is 1.0, .* set temperature, and leave"),
        ({"top_p": 0.5}, r"sets top_p=0.5, but top_p is 1.0"),
        ({"top_k": 2}, r"sets top_k=2, but top_k is 0"),
        ({"max_new_tokens": 60}, r"sets max_new_tokens=60, but max_completion_length is 12"),
        ({"max_tokens": 60}, r"sets max_tokens=60, but max_completion_length is 12"),
        ({"do_sample": False}, r"sets do_sample=False, so that a group would not be"),
        ({"num_beams": 3}, r"sets num_beams=3"),
    ],
)
def test_what_contradicts_the_fields_is_refused(build: Build, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(generation_kwargs=given)


def test_what_agrees_or_has_no_field_is_taken(build: Build) -> None:
    build(generation_kwargs={"temperature": 1.0, "do_sample": True, "suppress_tokens": [5], "max_new_tokens": 8})


@pytest.mark.parametrize("setting", [{"suppress_tokens": [5, 6]}, {"no_repeat_ngram_size": 2}, {"min_new_tokens": 3}])
def test_a_folder_that_changes_rollouts_is_refused(
    tiny_model: str, problems: Dataset, tmp_path: Path, setting: dict[str, Any]
) -> None:
    (name,) = setting
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.generation_config.update(**setting)
    settings = SETTINGS | {"output_dir": str(tmp_path)}
    with pytest.raises(ValueError, match=rf"generation config of \w+ sets {name}=.* scored without it\. Take it out"):
        DivergenceGRPOTrainer(model, digit_reward, DivergenceGRPOConfig(**settings), problems)
    args = DivergenceGRPOConfig(**settings, generation_kwargs=setting)  # the user's own word
    DivergenceGRPOTrainer(model, digit_reward, args, problems)


def test_vllm_is_given_all_settings() -> None:
    args = SimpleNamespace(use_vllm=True, generation_kwargs=None, min_p=None)
    assert unscored_settings(GenerationConfig(suppress_tokens=[5]), args) == {}
    args.use_vllm = False
    assert unscored_settings(GenerationConfig(suppress_tokens=[5], temperature=0.6, top_k=20), args) == {
        "suppress_tokens": [5]
    }
    assert unscored_settings(None, args) == {}
