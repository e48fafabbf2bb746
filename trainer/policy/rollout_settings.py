"""Settings by which rollouts would be sampled from another policy than the one that is scored and trained."""

from typing import Any

from tokenshift.analysis.sampling.folder_settings import changing_settings, settings_text

SET_BY_TRL = ("temperature", "top_p", "top_k", "repetition_penalty")
"""Settings that TRL gives `generate` itself, whatever the model's folder says."""

LENGTH = "max_completion_length"
FIELDS = {name: name for name in (*SET_BY_TRL, "min_p")} | {"max_new_tokens": LENGTH, "max_tokens": LENGTH}
"""Names in `generation_kwargs` -> fields of the config that say the same; a turn may be shorter than a completion."""

NUMBERS = {"do_sample": True, "num_beams": 1, "num_return_sequences": 1, "n": 1}
"""Names in `generation_kwargs` -> the one value with which TRL's groups are samples of the policy."""


def check_generation_kwargs(args: Any) -> None:
    """Refuse `generation_kwargs` that say otherwise than the config's own fields.

    Args:
        args: a [`~trl.GRPOConfig`] whose `generation_kwargs` is None or a dictionary.

    Raises:
        ValueError: for such a setting: log-probabilities would be scored, and recorded, by the field.
    """
    for name, value in (args.generation_kwargs or {}).items():
        field = FIELDS.get(name)
        shorter = field == LENGTH and isinstance(value, int) and value <= args.max_completion_length
        if field is not None and value != getattr(args, field) and not shorter:
            raise ValueError(
                f"generation_kwargs sets {name}={value!r}, but {field} is {getattr(args, field)!r}, by which "
                f"completions are scored and bounded; set {field}, and leave {name} out of generation_kwargs."
            )
        if name in NUMBERS and value != NUMBERS[name]:
            raise ValueError(
                f"generation_kwargs sets {name}={value!r}, so that a group would not be num_generations samples of "
                f"the policy; leave {name} out."
            )


def unscored_settings(config: Any, args: Any) -> dict[str, Any]:
    """Settings of a model's generation config, by name, that `generate` would apply in training.

    Args:
        config: the [`~transformers.GenerationConfig`] of the model, or None.
        args: a [`~trl.GRPOConfig`]; what its `generation_kwargs` name is the user's own.

    Returns:
        Nothing with vLLM, which is given all settings of sampling.
    """
    if args.use_vllm or config is None:
        return {}
    given = {*SET_BY_TRL, *(args.generation_kwargs if isinstance(args.generation_kwargs, dict) else {})}
    given |= set() if args.min_p is None else {"min_p"}
    return {name: value for name, value in changing_settings(config).items() if name not in given}


def check_folder_settings(config: Any, args: Any, model: str) -> None:
    """Refuse a model whose generation config would change what training samples.

    Args:
        config, args: as of `unscored_settings`.
        model: the model's name, for the message.

    Raises:
        ValueError: for such settings: the policy's probabilities would not be those that rollouts are sampled with.
    """
    if settings := unscored_settings(config, args):
        raise ValueError(
            f"The generation config of {model} sets {settings_text(settings)}: rollouts would be sampled with that, "
            f"but scored without it. Take it out of generation_config.json, or give generation_kwargs a "
            f"{next(iter(settings))} that changes nothing."
        )
