"""Whether the policy has positions for a prompt and a completion of the longest length that may be sampled."""

from collections.abc import Sequence
from typing import Any

from tokenshift.analysis.divergence.hidden_states import without_adapter
from tokenshift.analysis.sampling.token_ids import check_context


def check_policy_context(trainer: Any, prompt_lengths: Sequence[int] = ()) -> None:
    """Refuse completions that would end beyond the policy's last position.

    Args:
        trainer: a [`~trl.GRPOTrainer`].
        prompt_lengths: tokens of prompts; empty while none is known.

    Raises:
        ValueError: with the positions, the longest prompt and `max_completion_length`.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    name = getattr(model.config, "name_or_path", "") or type(without_adapter(model)).__name__
    adapter = getattr(model, "active_peft_config", None)
    learned = adapter.num_virtual_tokens if adapter is not None and adapter.is_prompt_learning else 0
    check_context(
        model.config,
        [length + learned for length in prompt_lengths],
        trainer.max_completion_length or 1,
        model=f"The policy {name!r}",
        setting="max_completion_length",
    )
