"""Options of single analyses that have no effect beside others; nothing heavy is imported.

Each function takes the values of all options, as attributes, and gives the options that have no effect, with the
reason and what to do.
"""

from typing import Any

from tokenshift.recipes.command_line.source_fields import constant

ENDS = constant("tokenshift.analysis.cross_sampling.sweep", "ENDS")
SAMPLED = constant("tokenshift.analysis.shift.shift_analysis", "SAMPLED")

WITHOUT_SAMPLING = (
    *("dataset_name", "dataset_config", "dataset_split", "prompt_column", "solution_column"),
    *("system_prompt", "prompt_template", "size", "samples", "seed", "max_new_tokens", "batch_size", "use_vllm"),
)
"""Options that have no effect where the trajectories come from a file."""


def shift_without_effect(values: Any) -> dict[str, str]:
    """Name the idle options of the shift analysis."""
    if values.trajectories in SAMPLED:
        return {}
    reason = f"trajectories={values.trajectories!r} brings problems and responses of its own; leave it out."
    return dict.fromkeys(WITHOUT_SAMPLING, reason)


def evolution_without_effect(values: Any) -> dict[str, str]:
    """Name the idle options of the analysis over checkpoints."""
    return {"rl_model": "the last of the checkpoints is the model after RL; name it there, and leave this out."}


def robustness_without_effect(values: Any) -> dict[str, str]:
    """Name the idle options of the analysis over temperatures and top-p."""
    reasons = {"temperature": "temperatures has those that are sampled at and compared; give it there."}
    if "mixed" not in values.kinds:
        reason = "kinds does not name the mixed policy; add mixed, or leave it out."
        reasons |= dict.fromkeys(("mixed_criterion", "mixed_epsilon"), reason)
    return reasons


def cross_without_effect(values: Any) -> dict[str, str]:
    """Name the idle options of cross-sampling; without `budgets` and `epsilons` the default budgets hold."""
    reasons = {"batch_tokens": "cross-sampling scores no responses; batch_size says how many are sampled at once."}
    if not set(values.criteria) - set(ENDS):
        reason = "criteria names none and all alone, which have no threshold; name another, or leave it out."
        reasons |= dict.fromkeys(("epsilons", "budgets", "match", "most", "pilot", "seed"), reason)
    elif not values.budgets and (values.budgets is not None or values.epsilons is not None):
        reason = "it is of the pilot, which finds thresholds for budgets; give budgets, or leave it out."
        reasons |= dict.fromkeys(("pilot", "seed"), reason)
        reasons["match"] = "it is of budgets; give budgets in place of epsilons, or leave it out."
    return reasons
