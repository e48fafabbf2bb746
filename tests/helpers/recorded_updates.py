"""A trainer that records its updates, and full logits to check its divergences by."""

from typing import Any

import torch

from tokenshift.analysis.divergence.hidden_states import evaluation_mode
from tokenshift.trainer import DivergenceGRPOTrainer


class Recorder(DivergenceGRPOTrainer):
    """Keeps, of every update, the divergences used and full logits of the policy before its step, without dropout."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.seen: list[dict[str, Any]] = []
        super().__init__(*args, **kwargs)

    def _weight_advantages(self, inputs: dict[str, Any], logps: torch.Tensor, states: list[torch.Tensor]) -> None:
        super()._weight_advantages(inputs, logps, states)
        with torch.no_grad(), evaluation_mode(self.model):
            self.seen.append(
                {
                    "inputs": {key: value for key, value in inputs.items() if isinstance(value, torch.Tensor)},
                    "divergence": self._token_logs.window.divergence[-1],
                    "policy": logits(self.model, inputs),
                }
            )


def logits(model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
    """Float64 logits `(N, V)` of the valid completion tokens."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    length = inputs["completion_ids"].shape[1]
    full = model(input_ids=ids, attention_mask=mask).logits[:, -length - 1 : -1]
    return full[inputs["completion_mask"].bool()].double()
