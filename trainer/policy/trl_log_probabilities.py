"""Whether the log-probabilities that TRL trains on are those of the model's own logits.

TRL's loss runs the backbone and projects its last state by the LM head's weight, with the factor and the cap that it
knows by their names in the config. A model that does more, or ignores such a name, samples from one distribution and
is trained on another.
"""

from typing import Any

import torch

from tokenshift.analysis.divergence.hidden_states import class_name, evaluation_mode, forward_arguments
from tokenshift.analysis.divergence.own_logits import FAR, check_finite
from tokenshift.analysis.sampling.plain_reading import check_causal
from tokenshift.trainer.precision import computing_dtype

TEXT = "The answer to 6 times 7 is 42, and the answer to 2 + 3 is 5."

TOLERANCE = {torch.float32: 2e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
"""Largest difference of a log-probability, as a share of the spread of the logits, that is rounding."""


@torch.no_grad()
def check_log_probabilities(trainer: Any) -> None:
    """Compare TRL's log-probabilities and entropies of a line of text with those of the model's own logits.

    It takes a few forward passes of the policy on a few tokens, without a trace in the run; every rank must call it.

    Args:
        trainer: a [`~trl.GRPOTrainer`] whose model is prepared.

    Raises:
        ValueError: if the model is not causal, or its logits are not finite; if TRL's differ from them by more than
            rounding, or if TRL cannot compute them.
    """
    model, temperature = getattr(trainer.model, "_orig_mod", trainer.model), trainer.temperature  # compiles nothing
    unwrapped = trainer.accelerator.unwrap_model(model)
    name = class_name(unwrapped)
    ids = _line(trainer, unwrapped)
    mask = torch.ones_like(ids)
    count = ids.shape[1] - 1
    with evaluation_mode(model):
        check_causal(model)
        with trainer.accelerator.autocast():
            logits = model(**forward_arguments(unwrapped, ids, mask)).logits[0, -count - 1 : -1].float()
        balances = bool(getattr(trainer, "aux_loss_enabled", False))
        try:
            logps, entropies = trainer._get_per_token_logps_and_entropies(
                model, ids, mask, count, compute_entropy=True, compute_aux_loss=balances
            )[:2]
        except (AttributeError, TypeError, RuntimeError, KeyError, IndexError) as error:
            advice = "set router_aux_loss_coef=0, if the experts' balance is what fails, or " if balances else ""
            raise ValueError(
                f"TRL cannot compute the log-probabilities of a {name} ({type(error).__name__}: {error}), so that "
                f"GRPO cannot train it; {advice}use another architecture."
            ) from error
    check_finite(unwrapped, logits)
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    expected = torch.log_softmax(logits, dim=-1)
    expected_logps = expected.gather(-1, ids[0, 1:].unsqueeze(-1)).squeeze(-1)
    expected_entropies = torch.special.entr(expected.exp()).sum(dim=-1)
    differences = torch.cat([logps[0] - expected_logps, entropies[0] - expected_entropies]).abs()
    if differences.isnan().any():
        raise ValueError(
            f"TRL's log-probabilities or entropies of a {name} are not finite, but the model's own logits have them: "
            "its LM head gives some tokens infinite logits, which TRL's entropy does not allow; use a large negative "
            "number there (-1e4), or another architecture."
        )
    difference = float(differences.max())
    limit = TOLERANCE[computing_dtype(trainer)] * max(1.0, -float(logits[logits >= -FAR].min()))
    if difference > limit:
        raise ValueError(
            f"TRL's log-probabilities of a {name} differ from those of the model's own logits by up to "
            f"{difference:.3g} nats: TRL projects the last hidden state by the LM head, with the factor and the cap "
            "that it knows from the config, and this model makes its logits otherwise; GRPO would train it on "
            "another distribution than it samples from, so use another architecture, or take a factor that the model "
            "ignores (logit_scale, logits_scaling) out of its config."
        )


def _line(trainer: Any, model: Any) -> torch.Tensor:
    """Token ids `(1, n)` of a line of text, n >= 2, all in the model's vocabulary."""
    tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    size = min(len(tokenizer), model.config.get_text_config().vocab_size)
    ids = [token for token in tokenizer(TEXT)["input_ids"] if token < size and token != tokenizer.pad_token_id]
    if len(ids) < 2:
        ids = [index % size for index in range(3, 11)]
    return torch.tensor([ids[:24]], device=trainer.accelerator.device)
