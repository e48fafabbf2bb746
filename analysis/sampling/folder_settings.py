"""Generation settings in a model's folder: none of them changes a response, and those that would are named once."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import GenerationConfig

from tokenshift.analysis.divergence.hidden_states import model_name, without_adapter

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "temperature": (1.0,),
    "top_k": (0,),
    "top_p": (1.0,),
    "min_p": (0.0,),
    "top_h": (),
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "penalty_alpha": (0.0,),
    "diversity_penalty": (0.0,),
    "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "bad_words_ids": ([],),
    "force_words_ids": ([],),
    "constraints": ([],),
    "sequence_bias": ([], {}),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": ([],),
    "exponential_decay_length_penalty": (),
    "guidance_scale": (1.0,),
    "watermarking_config": (),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "stop_strings": ([],),
    "max_time": (),
    "token_healing": (False,),
    "remove_invalid_values": (False,),
    "dola_layers": (),
}
"""Settings of a generation config that change what is sampled: name -> values that change nothing, beside None."""


def changing_settings(config: Any) -> dict[str, Any]:
    """Settings of a generation config, by name, that would change what is sampled if they were applied."""
    values = {name: getattr(config, name, None) for name in NEUTRAL}
    return {name: value for name, value in values.items() if value is not None and value not in NEUTRAL[name]}


def report_unused_settings(model: Any) -> None:
    """Warn of settings in a model's generation config that responses are sampled without, where there are any."""
    settings = changing_settings(getattr(model, "generation_config", None))
    if settings:
        warnings.warn(
            f"The generation config of {model_name(model)!r} sets {settings_text(settings)}; responses are sampled "
            "without that, by the temperature, top-p and length of this run alone.",
            stacklevel=3,
        )


def settings_text(settings: dict[str, Any]) -> str:
    """Settings as `name=value`, separated by commas; long values are cut."""
    words = [f"{name}={value!r}" for name, value in settings.items()]
    return ", ".join(word if len(word) <= 60 else f"{word[:60]}..." for word in words)


@contextmanager
def without_folder_settings(model: Any) -> Iterator[None]:
    """While it lasts, `generate` takes no setting from the model's folder, only those that it is given.

    `generate` fills every setting that its caller leaves open from the model's generation config.

    Args:
        model: a causal LM with `generate`, or a PEFT model around one.
    """
    inner = without_adapter(model)
    holders = {id(holder): holder for holder in (inner, model) if "generation_config" in vars(holder)}
    kept = [(holder, holder.generation_config) for holder in holders.values()]
    for holder, _ in kept:
        holder.generation_config = GenerationConfig()
    try:
        yield
    finally:
        if model is not inner and not any(holder is model for holder, _ in kept):
            vars(model).pop("generation_config", None)
        for holder, config in kept:
            holder.generation_config = config
