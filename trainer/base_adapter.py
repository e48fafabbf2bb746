"""The adapter of a PEFT policy as it was when training began: with it, the policy is the base, the model before RL.

TRL keeps a copy of a trained adapter (`ref`) with `beta > 0` only, and else falls back on the model without any
adapter. Here the base is the same for every `beta`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.utils import use_adapter

from tokenshift.analysis.storage.damage import check_zip
from tokenshift.analysis.storage.whole_file import whole_file

logger = get_logger(__name__)

FILE = "base_adapter.pt"
"""File of `output_dir` that holds the adapter as it was when the run began, for resumes."""

_LORA_PARAMETERS = ("lora_A.", "lora_B.", "lora_embedding_A.", "lora_embedding_B.", "lora_magnitude_vector.")


def adds_nothing(model: Any) -> bool:
    """Whether a PEFT model computes what it computes with its adapters disabled, as with a LoRA that was just made.

    True where only LoRA weights are trained and every active LoRA's B is 0. So it is False for a trained adapter, for
    an initialisation that changes the base's weights (PiSSA, OLoRA, LoftQ), for trained biases, `modules_to_save` and
    prompt tuning, even where they have not moved yet.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer  # slow to import, and only adapters need it

    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not all(any(part in name for part in _LORA_PARAMETERS) for name in trained):
        return False
    if model.active_peft_config.is_prompt_learning:
        return False
    for module in model.modules():
        if hasattr(module, "original_module"):  # a copy of a layer, trained whole or in part
            return False
        if not isinstance(module, BaseTunerLayer):
            continue
        if not hasattr(module, "lora_B"):  # another method than LoRA
            return False
        lora: Any = module
        for layers in (lora.lora_B, lora.lora_embedding_B):
            for name in set(module.active_adapters) & set(layers):
                layer = layers[name]
                weights = layer.parameters() if isinstance(layer, torch.nn.Module) else [layer]
                if any(bool(_values(weight).any()) for weight in weights):
                    return False
    return True


def _values(parameter: torch.Tensor) -> torch.Tensor:
    """The parameter's values on this rank: those of its own part under ZeRO-3."""
    return getattr(parameter, "ds_tensor", parameter).detach()


class BaseAdapter:
    """Turns a PEFT policy back into the base: disables its adapters, or restores the trained weights of the start.

    It is written to `output_dir/base_adapter.pt` when a run begins, and read from there when it resumes.

    Args:
        trainer: any trainer of TRL's with a PEFT policy that has not been trained or resumed yet.

    Attributes:
        weights: the trained weights by name, copies; None where disabling the adapters gives the base.

    Raises:
        ValueError: if weights would have to be kept of a policy that is sharded over ranks (ZeRO-3, FSDP).
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.weights: dict[str, torch.Tensor] | None = None
        if not adds_nothing(self._policy):
            self._check_whole()
            self.weights = {
                name: parameter.detach().clone()
                for name, parameter in self._policy.named_parameters()
                if parameter.requires_grad
            }
        trainer.add_callback(_KeepBaseAdapter(self))

    @property
    def _policy(self) -> Any:
        return self.trainer.accelerator.unwrap_model(self.trainer.model)

    def _check_whole(self) -> None:
        plugin = getattr(self.trainer.accelerator.state, "deepspeed_plugin", None)
        sharded = "FSDP" if self.trainer.is_fsdp_enabled else None
        if self.trainer.is_deepspeed_enabled and plugin is not None and plugin.zero_stage == 3:
            sharded = "DeepSpeed ZeRO-3"
        if sharded:
            raise ValueError(
                f"The policy's adapter is not a new LoRA, so the base is the adapter as it begins, and {sharded} "
                "shards it: merge it into the model (merge_and_unload), save that, and train a new LoRA from there, "
                "or use DDP or ZeRO-2."
            )

    @contextmanager
    def restored(self) -> Iterator[None]:
        """The policy computes as the base inside; afterwards its weights are what they were, bit for bit."""
        if self.weights is None:
            with use_adapter(self._policy, None):
                yield
            return
        parameters = dict(self._policy.named_parameters())
        current = {name: parameters[name].data.clone() for name in self.weights}
        # through `.data`, which autograd does not see: a backward pass may still need these tensors
        try:
            for name, value in self.weights.items():
                parameters[name].data.copy_(value)
            yield
        finally:
            for name, value in current.items():
                parameters[name].data.copy_(value)

    def trains(self, weights: list[torch.nn.Parameter | None]) -> bool:
        """Whether one of the parameters is kept, so that the base has other values for it than the policy."""
        if self.weights is None:
            return False
        kept = {id(parameter) for name, parameter in self._policy.named_parameters() if name in self.weights}
        return any(id(weight) in kept for weight in weights)

    # Over resumes --------------------------------------------------------------------------------------------------

    def save(self, file: Path) -> None:
        """Write the weights, or that there are none, to a file."""
        with whole_file(file) as partial:
            torch.save({"weights": self.weights}, partial)

    def load(self, file: Path) -> None:
        """Take the weights from a run's file, if there is one; every rank must call it.

        Raises:
            ValueError: if they are of another adapter than the policy's, or damaged.
        """
        saved = None
        if self.trainer.accelerator.is_main_process and file.exists():
            check_zip(file)
            saved = torch.load(file, map_location="cpu", weights_only=True)
        (saved,) = broadcast_object_list([saved])
        if saved is None:
            logger.warning(
                f"{file} is missing, so the base is the adapter as the resumed trainer was given it; give it the "
                "adapter that the run began with, not a checkpoint's."
            )
            return
        weights = saved["weights"]
        shapes = {name: parameter.shape for name, parameter in self._policy.named_parameters()}
        wrong = [name for name, value in (weights or {}).items() if shapes.get(name) != value.shape]
        if wrong:
            raise ValueError(f"{file} is of another adapter than the policy's: it has {wrong[0]!r}.")
        if weights is not None:
            self._check_whole()
            weights = {name: value.to(self.trainer.accelerator.device) for name, value in weights.items()}
        self.weights = weights


class _KeepBaseAdapter(TrainerCallback):
    """Writes the base's adapter when a run begins, and reads it when the run resumes."""

    def __init__(self, adapter: BaseAdapter) -> None:
        self.adapter = adapter

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        file = Path(str(args.output_dir)) / FILE
        if state.global_step:
            self.adapter.load(file)
        elif state.is_world_process_zero:
            self.adapter.save(file)
