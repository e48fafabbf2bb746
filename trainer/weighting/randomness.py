"""Detection of forward passes that draw random numbers, as dropout does, and the names of what draws them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_DROPOUT = torch.nn.modules.dropout._DropoutNd


class Randomness:
    """Whether a forward pass in training draws random numbers: dropout of any kind, layer dropout, router noise.

    The state of the random number generators before and after tells, whatever the architecture calls it.

    Attributes:
        present: whether a forward pass that was watched drew any.
    """

    def __init__(self, device: torch.device) -> None:
        self.present = False
        self._device_module: Any = getattr(torch, device.type, None) if device.type != "cpu" else None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the forward passes inside, until one has drawn random numbers."""
        if self.present:
            yield
            return
        before = self._states()
        yield
        self.present = any(not torch.equal(*pair) for pair in zip(before, self._states(), strict=True))

    def _states(self) -> list[torch.Tensor]:
        states = [torch.get_rng_state()]
        if hasattr(self._device_module, "get_rng_state"):
            states.append(self._device_module.get_rng_state())
        return states


def _rates(model: torch.nn.Module) -> dict[str, set[float]]:
    """Dropout rates above 0 by kind: `lora_dropout`, `nn.Dropout`, or the attribute that a module keeps it in."""
    rates: dict[str, set[float]] = {}
    for name, module in model.named_modules():
        if isinstance(module, _DROPOUT):
            kind = "lora_dropout" if "lora_dropout" in name else "nn.Dropout"
            kept: dict[str, Any] = {kind: module.p}
        else:
            kept = {key: value for key, value in vars(module).items() if "drop" in key}
        for kind, value in kept.items():
            if isinstance(value, float) and value > 0:
                rates.setdefault(kind, set()).add(value)
    return rates


def describe_randomness(model: torch.nn.Module) -> str:
    """One line: what makes the forward passes of training random, what is done, and the settings to change."""
    rates = _rates(model)
    kinds = ", ".join(f"{kind} {'/'.join(f'{rate:g}' for rate in sorted(values))}" for kind, values in rates.items())
    settings = []
    if "nn.Dropout" in rates or not rates:
        settings.append("disable_dropout=True")
    if "lora_dropout" in rates:
        settings.append("lora_dropout=0" + (" (or disable_dropout=True)" if len(rates) == 1 else ""))
    settings += [
        f"model_init_kwargs={{'{kind}': 0.0}}" for kind in rates if kind not in ("nn.Dropout", "lora_dropout")
    ]
    return (
        f"The policy trains with dropout ({kinds or 'or other random numbers in its forward passes'}). Divergences "
        "and weights are taken without it, from one more forward pass per update; "
        f"{' and '.join(settings)} would save that pass."
    )
