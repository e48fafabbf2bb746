"""Checks before training that the policy of a trainer can be sampled on a data set; each refusal is one line."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from datasets import Dataset
from transformers import ProcessorMixin

from tokenshift.analysis.divergence.hidden_states import without_adapter
from tokenshift.trainer.policy.responses import prompt_token_ids, rollout_class

IMAGE_COLUMNS = ("image", "images")
"""Columns of a data set in which TRL looks for images."""


def image_column(dataset: Any) -> str | None:
    """The column of a data set that holds images, be it `prompt`, in the messages themselves; None without images.

    Args:
        dataset: a map-style or a streaming data set of TRL's; a stream is judged by its columns and its first row.
    """
    names = list(getattr(dataset, "column_names", None) or [])
    first: dict[str, Any] = next(iter(dataset), {})
    for name in IMAGE_COLUMNS:
        if name in names or name in first:
            return name
    if _has_image_blocks(first.get("prompt")):
        return "prompt"
    if isinstance(dataset, Dataset) and "prompt" in names:
        kind = str(dataset.features["prompt"])
        # texts, and blocks of text alone, have no place for an image, so that most data sets need not be read
        if ("image" in kind or "Json" in kind) and any(
            _has_image_blocks(row["prompt"]) for row in dataset.select_columns("prompt")
        ):
            return "prompt"
    return None


def _has_image_blocks(prompt: Any) -> bool:
    if not isinstance(prompt, list):
        return False
    contents = [message.get("content") for message in prompt if isinstance(message, Mapping)]
    blocks = [block for content in contents if isinstance(content, list) for block in content]
    return any(isinstance(block, Mapping) and block.get("type") == "image" for block in blocks)


def check_text_alone(trainer: Any) -> None:
    """Refuse images before anything is generated: a reference of whole distributions reads text alone.

    Args:
        trainer: a [`~trl.GRPOTrainer`].

    Raises:
        ValueError: if the training data has images, or tools and environments may give them.
    """
    way_out = "Use divergence='k1', 'k2' or 'k3', and a weighting of the sampled tokens."
    if trainer._is_vlm and (trainer.tools or trainer.environment_factories is not None):
        raise ValueError(
            "The comparison of whole distributions is for text, but the tools or environments of a "
            f"vision-language model may give images. {way_out}"
        )
    if trainer._is_vlm and (images := image_column(trainer.train_dataset)) is not None:
        raise ValueError(
            "The comparison of whole distributions is for text, but the training data has images in its column "
            f"{images!r}. {way_out}"
        )


def check_can_be_sampled(
    trainer: Any, dataset: Any, purpose: str, *, rollout_func: Callable[..., Any] | None = None
) -> None:
    """Check that responses of a trainer's policy to these problems can be sampled without touching the training.

    Args:
        trainer: any trainer of TRL's.
        dataset: the problems.
        purpose: what the responses are for, as the subject of the error messages.
        rollout_func: a rollout function to be called instead of the trainer's own.

    Raises:
        ValueError: if they cannot: one line that says why and what to change.
    """
    if not isinstance(dataset, Dataset):
        raise ValueError(f"{purpose} needs a datasets.Dataset to pick problems from, not {type(dataset).__name__}.")
    if not len(dataset):
        raise ValueError(f"{purpose}'s dataset is empty.")
    _check_model(trainer, purpose)
    _check_columns(trainer, dataset, purpose)
    if getattr(trainer, "rollout_func", None) is not None and rollout_func is None:
        raise ValueError(
            f"{purpose} does not call the trainer's rollout_func, since it cannot know what that keeps from one call "
            "to the next. Give ShiftProbeCallback or heldout_score one of its own, rollout_func=..., or use "
            "environment_factory."
        )
    if rollout_class(trainer) is None and getattr(trainer, "tools", None):
        raise ValueError(
            f"{purpose} can run tools in GRPOTrainer alone, not in {type(trainer).__name__}. Train without tools, or "
            "leave it out."
        )
    for tool in getattr(trainer, "_standalone_tools", None) or []:
        try:
            copy.deepcopy(tool)
        except Exception as error:
            raise ValueError(
                f"{purpose} cannot copy the object of the tool {tool.__name__}: {error}. Make the tool a function, or "
                "a method of an environment."
            ) from error


def _check_model(trainer: Any, purpose: str) -> None:
    model = without_adapter(trainer.accelerator.unwrap_model(trainer.model))
    name = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(
            f"{purpose} needs a causal LM, but the trainer's {name} is an encoder-decoder model. Leave it out."
        )
    if not (hasattr(model, "can_generate") and model.can_generate()):
        raise ValueError(f"{purpose} needs a causal LM, but the trainer's {name} generates no text. Leave it out.")


def _check_columns(trainer: Any, dataset: Dataset, purpose: str) -> None:
    columns = dataset.column_names
    factories: Any = getattr(trainer, "environment_factories", None)
    if "prompt" not in columns and factories is None:
        raise ValueError(f"{purpose} needs a column 'prompt'; the dataset has {', '.join(columns)}.")
    if getattr(trainer, "_multi_environment", False):
        names = set(dataset["environment"]) if "environment" in columns else {None}
        if unknown := names - set(factories):
            raise ValueError(
                f"{purpose} needs a column 'environment' with one of {', '.join(map(repr, factories))} in every row; "
                f"the dataset has {', '.join(sorted(map(repr, unknown)))}."
            )
    if (images := image_column(dataset)) is not None:
        if rollout_class(trainer) is None:
            raise ValueError(
                f"{purpose} passes images in GRPOTrainer and RLOOTrainer alone, not in {type(trainer).__name__}, and "
                f"the dataset has them in its column {images!r}. Give it problems of text."
            )
        if not isinstance(trainer.processing_class, ProcessorMixin):
            raise ValueError(
                f"{purpose}'s dataset has images in its column {images!r}, but the trainer's processing_class is a "
                f"{type(trainer.processing_class).__name__}, which reads none. Give it problems of text."
            )
    elif rollout_class(trainer) is None:
        prompt_token_ids(trainer, dataset[0])
