"""The devices of a model whose parts lie on several, or on a disk: by `device_map`, through accelerate's hooks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def input_device(model: Any) -> torch.device:
    """The device for a model's token ids: that of its input embeddings while they are used.

    Weights that wait in host memory or on a disk are on the `meta` device until their module is called; the hook of
    the module says where it runs. A model that is spread over devices returns its logits to the device of its inputs.

    Args:
        model: a causal LM, with or without an adapter.
    """
    device: torch.device = model.device
    if device.type != "meta":
        return device
    embeddings = model.get_input_embeddings()
    for module in (embeddings, model):
        execution = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if execution is not None:
            return torch.device(execution)
    return device


@contextmanager
def weights_in_memory(module: torch.nn.Module) -> Iterator[None]:
    """While it lasts, a module's own weights are on the device that it runs on, from wherever they wait."""
    if not hasattr(module, "_hf_hook"):
        yield
        return
    from accelerate.utils import align_module_device  # slow to import, and only spread models need it

    with align_module_device(module):
        yield


def is_offloaded(model: torch.nn.Module) -> bool:
    """Whether some of a model's weights wait in host memory or on a disk until they are used."""
    return any(parameter.device.type == "meta" for parameter in model.parameters())
