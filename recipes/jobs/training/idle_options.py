"""Options of the training recipe that have no effect beside the values of others; nothing heavy is imported."""

from typing import Any

from tokenshift.recipes.command_line.trl_options import library_options_without_effect, without_revision
from tokenshift.recipes.inputs.plan_arguments import without_plan

COLOCATED = (
    *("vllm_gpu_memory_utilization", "vllm_max_model_length", "vllm_tensor_parallel_size", "vllm_enable_sleep_mode"),
    "vllm_model_impl",
)
"""Options of vLLM in the training's own processes."""

IMPORTANCE_SAMPLING_BOUNDS = (
    *("vllm_importance_sampling_clip_max", "vllm_importance_sampling_clip_min", "vllm_importance_sampling_cap"),
)
"""Options that bound the ratios by which a rollout of vLLM is corrected."""

SERVED = ("vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout", "vllm_group_port")
"""Options of a vLLM server."""


CLIPPING_BOUNDS = ("epsilon", "epsilon_high", "delta")
CLIPPING: dict[str, tuple[str, ...]] = {"cispo": ("epsilon_high",), "sapo": (), "vespo": ()}
"""Losses that do not clip ratios as GRPO does -> the bounds that they take."""


def settings_without_effect(values: Any) -> dict[str, str]:
    """The options that have no effect, whatever the registries hold, with the reason and what to do.

    Args:
        values: The values of all options, as attributes.
    """
    reasons = library_options_without_effect(values)

    def add(names: tuple[str, ...], reason: str) -> None:
        reasons.update(dict.fromkeys(names, reason))

    if "wandb" not in (values.report_to or ()):
        add(("wandb_project", "wandb_entity"), "nothing is reported to W&B; give --report_to wandb, or leave it out.")
    if without_revision(values.model_name_or_path):
        add(("model_revision",), f"model_name_or_path={values.model_name_or_path!r} has no revisions; leave it out.")
    if not values.dynamic_sampling:
        names = ("dynamic_sampling_max_rounds", "dynamic_sampling_metric")
        add(names, "dynamic_sampling is off; turn it on, or leave it out.")
    if values.probe_steps is None:
        add(("probe_size", "probe_top_p"), "there is no shift probe; give --probe_steps, or leave it out.")
        if not values.dynamic_sampling:
            add(("correct_threshold",), "there is no shift probe and no dynamic sampling; leave it out.")
    _add_generation(values, add)
    _add_loss(values, add)
    reasons |= without_plan(values)
    add(("max_tool_calling_iterations",), "this recipe has no tools; leave it out.")
    add(("data_seed",), "TRL's samplers take seed alone; leave it out.")
    return reasons


def _add_generation(values: Any, add: Any) -> None:
    if not values.use_vllm:
        names = tuple(name for name in vars(values) if name.startswith("vllm_"))
        add(names, "vLLM is not used; give --use_vllm true, or leave it out.")
    elif values.vllm_mode == "server":
        add(COLOCATED, "it is for vllm_mode colocate, and vllm_mode is server; leave it out.")
    else:
        add(SERVED, f"it is for vllm_mode server, and vllm_mode is {values.vllm_mode}; leave it out.")
    if values.use_vllm and not values.vllm_importance_sampling_correction:
        names = ("vllm_importance_sampling_mode", *IMPORTANCE_SAMPLING_BOUNDS)
        add(names, "vllm_importance_sampling_correction is off; turn it on, or leave it out.")
    if not values.use_transformers_continuous_batching:
        reason = "use_transformers_continuous_batching is off; turn it on, or leave it out."
        add(("transformers_continuous_batching_config",), reason)
    if not values.log_completions:
        names = ("num_completions_to_print", "log_unique_prompts", "log_completions_hub_repo", "log_multimodal")
        add(names, "log_completions is off; turn it on, or leave it out.")


def _add_loss(values: Any, add: Any) -> None:
    if values.loss_type in CLIPPING:
        bounds = tuple(name for name in CLIPPING_BOUNDS if name not in CLIPPING[values.loss_type])
        add(bounds, f"the loss {values.loss_type} does not clip by it; leave it out.")
    if values.beta == 0:
        add(("use_bias_correction_kl",), "beta is 0, so there is no KL term; leave it out.")
    if not values.sync_ref_model:
        add(("ref_model_mixup_alpha", "ref_model_sync_steps"), "sync_ref_model is off; turn it on, or leave it out.")
    if not values.use_adaptive_entropy:
        names = ("entropy_coef_min", "entropy_coef_max", "entropy_coef_delta", "entropy_target")
        add(names, "use_adaptive_entropy is off; turn it on, or leave it out.")
    for loss in ("sapo", "vespo"):
        if values.loss_type != loss:
            names = tuple(name for name in vars(values) if name.startswith(f"{loss}_"))
            add(names, f"loss_type is {values.loss_type}; give --loss_type {loss}, or leave it out.")
