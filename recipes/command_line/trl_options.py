"""Options of TRL and transformers that have no effect beside others, in any training recipe."""

from typing import Any

from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.recipes.command_line.earlier_runs import is_resume_wanted
from tokenshift.recipes.inputs.model_names import SHIPPED_MODELS

EVALUATION_OPTIONS = (
    *("eval_steps", "eval_delay", "eval_accumulation_steps", "prediction_loss_only", "eval_do_concat_batches"),
    *("eval_use_gather_object", "include_for_metrics", "batch_eval_metrics", "eval_on_start", "num_generations_eval"),
    *("bf16_full_eval", "fp16_full_eval"),
)
"""Options of transformers' evaluation during training, which `eval_strategy` turns on."""

UNUSED = ("do_train", "do_eval", "do_predict", "dataset_streaming", "ignore_bias_buffers")
"""Options that no recipe reads."""


def library_options_without_effect(values: Any) -> dict[str, str]:
    """The options of TRL and transformers that have no effect, with the reason and what to do.

    Args:
        values: The values of all options, as attributes.
    """
    reasons = dict.fromkeys(UNUSED, "no recipe reads it; leave it out.")

    def add(names: tuple[str, ...], reason: str) -> None:
        reasons.update(dict.fromkeys(names, reason))

    def starting_with(*prefixes: str) -> tuple[str, ...]:
        return tuple(name for name in vars(values) if name.startswith(prefixes))

    if not values.use_peft:
        names = (*starting_with("lora_"), "use_rslora", "use_dora")
        add(names, "no adapter is trained; give --use_peft true, or leave it out.")
    if not values.load_in_4bit:
        names = (*starting_with("bnb_4bit_"), "use_bnb_nested_quant")
        add(names, "the model is not quantized to 4 bits; give --load_in_4bit true, or leave it out.")
    if not values.push_to_hub:
        add(starting_with("hub_"), "nothing is pushed; give --push_to_hub true, or leave it out.")
    if "trackio" not in (values.report_to or ()):
        add((*starting_with("trackio_"), "project"), "it is trackio's, which report_to does not name; leave it out.")
    if _text(values.eval_strategy) == "no":
        add(EVALUATION_OPTIONS, "eval_strategy is no; leave it out.")
        if getattr(values, "probe_steps", None) is None:
            reason = "eval_strategy is no, and there is no shift probe; leave it out."
            add(("per_device_eval_batch_size",), reason)
    if not values.load_best_model_at_end and _text(values.lr_scheduler_type) != "reduce_lr_on_plateau":
        reason = "no checkpoint is chosen by it; give --load_best_model_at_end true, or leave it out."
        add(("metric_for_best_model", "greater_is_better"), reason)
    if values.max_steps > 0:
        reason = f"max_steps={values.max_steps} ends the training; give --max_steps -1, or leave it out."
        add(("num_train_epochs",), reason)
    for name in ("save", "logging"):
        strategy = _text(getattr(values, f"{name}_strategy"))
        if strategy != "steps":
            add((f"{name}_steps",), f"{name}_strategy is {strategy}; give --{name}_strategy steps, or leave it out.")
    if not values.gradient_checkpointing:
        add(("gradient_checkpointing_kwargs",), "gradient_checkpointing is off; turn it on, or leave it out.")
    if not values.use_liger_kernel:
        add(("liger_kernel_config",), "use_liger_kernel is off; leave it out.")
    if is_resume_wanted(values) and values.overwrite:
        add(("overwrite",), "resume_from_checkpoint goes on with what is there; leave one of them out.")
    return reasons


def without_revision(model: str | None) -> bool:
    """Whether a model is one that has no revisions: a folder, or one that comes with the project."""
    return model is not None and (model in SHIPPED_MODELS or user_path(model, "model_name_or_path").is_dir())


def _text(strategy: Any) -> str:
    """The value of one of transformers' strategies, which may be an enumeration's member."""
    return str(getattr(strategy, "value", strategy))
