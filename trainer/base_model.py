"""Loads the model before RL, which a policy is compared with."""

from typing import Any

from accelerate.utils import DistributedType
from transformers import AutoConfig
from trl.models import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import create_model_from_path, get_config_model_id


def load_base(trainer: Any, path: str | None = None) -> Any:
    """The model before RL, prepared as TRL prepares its reference model; None for a PEFT policy ([`BaseAdapter`]).

    Args:
        trainer: any trainer of TRL's.
        path: a folder or a hub name of another model than the one the policy began as.

    Raises:
        ValueError: if no path is given and the policy's config names no model.
    """
    model, args = trainer.model, trainer.args
    if path is None:
        if hasattr(model, "peft_config"):
            return None
        reference = getattr(trainer, "ref_model", None)
        if reference is not None and not getattr(args, "sync_ref_model", False):
            return reference
        if not get_config_model_id(model.config):
            raise ValueError(
                "The policy's config names no model to load the base from; give base_model, or build the trainer from "
                "a folder or a hub name."
            )
    kwargs = dict(getattr(args, "model_init_kwargs", None) or {}) if path is None else {}
    if args.distributed_state.distributed_type in (DistributedType.MULTI_GPU, DistributedType.DEEPSPEED):
        kwargs["device_map"] = None
    kwargs |= {"dtype": model.dtype, "attn_implementation": _attention(model.config)}
    kwargs.setdefault("trust_remote_code", getattr(args, "trust_remote_code", False))
    if getattr(model, "is_quantized", False):  # else quantization would be measured as a shift
        kwargs["quantization_config"] = model.config.quantization_config
    base = create_model_from_path(path or get_config_model_id(model.config), **kwargs)
    if trainer.is_deepspeed_enabled:
        return prepare_deepspeed(base, trainer.accelerator)
    if trainer.is_fsdp_enabled:
        return prepare_fsdp(base, trainer.accelerator)
    return trainer.accelerator.prepare_model(base, evaluation_mode=True)


def _attention(config: Any) -> Any:
    """The attention of a model by its config, as `from_pretrained` takes it: by part, where its parts differ.

    A vision or audio part may not know the attention of the text's part, and refuses it when it is asked for.
    """
    names = [name for name in config.sub_configs if getattr(config, name, None) is not None]
    parts = {name: _attention(getattr(config, name)) for name in names}
    own = config._attn_implementation
    return own if all(part == own for part in parts.values()) else {"": own, **parts}


def check_added_tokens(trainer: Any, tokenizer: Any) -> None:
    """Refuse a policy that tokens were added to after it was loaded: the base that its config names lacks them.

    Raises:
        ValueError: with the base, the tokens, and the way out.
    """
    model, args = trainer.model, trainer.args
    name = get_config_model_id(model.config)
    if hasattr(model, "peft_config") or not name:
        return
    kwargs = {"revision": (getattr(args, "model_init_kwargs", None) or {}).get("revision", "main")}
    try:
        base_config = AutoConfig.from_pretrained(
            name, trust_remote_code=getattr(args, "trust_remote_code", False), **kwargs
        )
    except (OSError, ValueError):  # the base cannot be loaded either, which says why
        return
    base_rows, rows = (config.get_text_config().vocab_size for config in (base_config, model.config))
    ids = {index: token for token, index in tokenizer.get_vocab().items()}
    added = [ids[index] for index in sorted(ids) if base_rows <= index < rows]
    if not added:
        return
    tokens = ", ".join(map(repr, added[:5])) + (f" and {len(added) - 5} more" if len(added) > 5 else "")
    raise ValueError(
        f"The base, {name}, has {base_rows} rows in its LM head, but the policy was resized to {rows} after it was "
        f"loaded: the added tokens {tokens} are unknown to the base. Save the resized model and its tokenizer first "
        "(model.save_pretrained(folder), tokenizer.save_pretrained(folder)), and start from that folder."
    )
