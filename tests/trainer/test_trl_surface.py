"""TRL's private surface in use, so that a new TRL fails here, in words, and not in a user's run."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import trl
from transformers import Trainer
from trl import GRPOTrainer, RLOOTrainer
from trl.trainer.utils import RepeatSampler, nanstd

from tokenshift.trainer.dynamic_sampling.prompt_groups import paddings
from tokenshift.trainer.grpo import IMAGE_INPUTS
from tokenshift.trainer.policy.undisturbed import ROLLOUT_STATE
from tokenshift.trainer.probe.trajectories import NOT_FOR_THE_MODEL

METHODS = {
    GRPOTrainer: {
        "_compute_loss": ("model", "inputs"),
        "compute_loss": ("model", "inputs"),
        "training_step": ("model", "inputs"),
        "_get_per_token_logps_and_entropies": (
            *("model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"),
            *IMAGE_INPUTS,
        ),
        "_tokenize_prompts": ("prompts",),
        "_generate": ("prompts",),
        "_calculate_rewards": ("inputs", "prompts", "completions", "completion_ids_list"),
        "_generate_and_score_completions": ("inputs",),
        "_get_train_sampler": ("dataset",),
        "_save_checkpoint": ("model", "trial"),
        "_load_optimizer_and_scheduler": ("checkpoint",),
        "log": ("logs", "start_time"),
        "create_model_card": ("model_name",),
    },
    RLOOTrainer: {
        "_get_per_token_logps_and_entropies": ("model", "input_ids", "attention_mask", "logits_to_keep"),
        "_tokenize_prompts": ("prompts",),
        "_generate": ("prompts",),
        "_calculate_rewards": ("inputs", "prompts", "completions", "completion_ids_list"),
        "_generate_and_score_completions": ("inputs",),
    },
    Trainer: {
        "_get_output_dir": ("trial",),
        "_get_grad_norm": ("model", "grad_norm"),
        "save_model": ("output_dir",),
        "_push_from_checkpoint": ("checkpoint_folder",),
        "_run_epoch": (),
        "_remove_unused_columns": ("dataset", "description"),
        "train": ("resume_from_checkpoint",),
    },
    RepeatSampler: {"__iter__": (), "__init__": ("data_source", "mini_repeat_count", "batch_size", "repeat_count")},
}
FUNCTIONS = {
    "trl.data_utils": {"prepare_multimodal_messages": ("messages", "images")},
    "trl.kernels.chunked_divergence": {"ChunkedDivergenceFunction": ()},
    "trl.models": {
        "prepare_deepspeed": ("model", "accelerator"),
        "prepare_fsdp": ("model", "accelerator"),
        "unwrap_model_for_generation": ("model", "accelerator", "gradient_checkpointing_kwargs"),
    },
    "trl.rewards": {"get_soft_overlong_punishment": ("max_completion_len", "soft_punish_cache")},
    "trl.trainer.utils": {
        "create_model_from_path": ("model_id",),
        "get_callable_name": ("func",),
        "get_config_model_id": ("config",),
        "is_async_callable": ("func",),
        "nanstd": ("tensor", "dim"),
        "use_adapter": ("model", "adapter_name"),
    },
}
"""Functions that the project imports from TRL's modules, by module, and the parameters that it gives them."""

ATTRIBUTES = (
    "_step",
    "_pending_metrics",
    "_pending_extra_logs",
    "_buffered_inputs",
    "_metrics",
    "_logs",
    "num_iterations",
    "num_generations",
    "num_generations_eval",
    "reward_weights",
    "scale_rewards",
    "shuffle_dataset",
    "_tokenizer",
    "_is_vlm",
    "_standalone_tools",
    "_environment_pool",
    "_multi_environment",
    "environment_factories",
    "rollout_func",
    *ROLLOUT_STATE,
)
GENERATED = {
    GRPOTrainer: "prompt_ids, completion_ids, tool_mask, completions, logprobs, extra_fields, images, tool_images",
    RLOOTrainer: "prompt_ids, completion_ids, completions",
}
LOSS_READS = (
    'completion_ids, completion_mask = inputs["completion_ids"], inputs["completion_mask"]',
    "self._get_per_token_logps_and_entropies(",
    'advantages = inputs["advantages"]',
    "if advantages.dim() == 1:",
    'inputs.get("old_per_token_logps")',
    'inputs["tool_mask"]',
)
LOGS = {"images", "prompt", "completion", "rewards", "advantages", "extra"}
REWARD_SUM = "(rewards_per_func * self.reward_weights.to(device).unsqueeze(0)).nansum(dim=1)"
FOR_IMAGES = {
    "pixel_values",
    "image_grid_thw",
    "pixel_attention_mask",
    "spatial_shapes",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
    "num_images",
    "num_tiles",
}
"""Tensors of a generation with images, which dynamic sampling refuses."""


def test_functions_of_trl_that_no_page_of_its_documentation_names() -> None:
    changed = []
    for module, functions in FUNCTIONS.items():
        for name, parameters in functions.items():
            function = getattr(import_module(module), name, None)
            if function is None:
                changed.append(f"{module}.{name} is gone")
            elif missing := set(parameters) - set(inspect.signature(function).parameters):
                changed.append(f"{module}.{name} no longer takes {', '.join(sorted(missing))}")
    assert not changed, f"TRL {trl.__version__} changed what tokenshift uses: {'; '.join(changed)}."


def test_the_functions_are_those_in_use() -> None:
    """Whatever the project imports from a module of TRL below its top stands in one of the tables."""
    root, used = Path(__file__).parents[2], set()
    for room in ("analysis", "trainer", "rewards", "recipes"):
        for file in (root / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trl."):
                    used |= {(str(node.module), alias.name) for alias in node.names}
    named = {(module, name) for module, functions in FUNCTIONS.items() for name in functions}
    assert used == named | {("trl.trainer.utils", "RepeatSampler")}


def test_private_surface_of_trl() -> None:
    changed = []
    for owner, methods in METHODS.items():
        for name, parameters in methods.items():
            method = getattr(owner, name, None)
            if method is None:
                changed.append(f"{owner.__name__}.{name} is gone")
            elif missing := set(parameters) - set(inspect.signature(method).parameters):
                changed.append(f"{owner.__name__}.{name} no longer takes {', '.join(sorted(missing))}")
    source = inspect.getsource(GRPOTrainer)
    changed += [f"GRPOTrainer.{name} is not used any more" for name in ATTRIBUTES if f"self.{name}" not in source]
    loss = inspect.getsource(inspect.unwrap(GRPOTrainer._compute_loss))
    places = [loss.find(text) for text in LOSS_READS]
    changed += [f"_compute_loss no longer has: {text}" for text, at in zip(LOSS_READS, places, strict=True) if at < 0]
    if places[1] >= places[2] >= 0:
        changed.append("_compute_loss reads the advantages before the log-probabilities are there")
    made = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    tensors = set(re.findall(r'output\["(\w+)"\] =', made)) | set(re.findall(r'^ {12}"(\w+)": \w+,$', made, re.M))
    for owner, text in GENERATED.items():
        if f"return {text}\n" not in inspect.getsource(owner._generate):
            changed.append(f"{owner.__name__}._generate no longer returns {text}")
    assert FOR_IMAGES - {"num_images", "num_tiles"} == FOR_IMAGES - NOT_FOR_THE_MODEL
    known = set(paddings(0)) | {"num_items_in_batch"} | FOR_IMAGES
    assert known - FOR_IMAGES <= NOT_FOR_THE_MODEL
    changed += [f"{name} is given to no forward pass that scores" for name in sorted(FOR_IMAGES ^ set(IMAGE_INPUTS))]
    changed += [f"a generation has {name} now, or no longer" for name in sorted(tensors ^ known)]
    logs = re.search(r"self\._logs = \{\n(.*?)\n {8}\}", source, re.S)
    if logs is None or set(re.findall(r'"(\w+)":', logs[1])) != LOGS:
        changed.append("the completions log has other columns")
    if REWARD_SUM not in made:
        changed.append(f"rewards are no longer summed as {REWARD_SUM}")
    if tuple(inspect.signature(nanstd).parameters)[:2] != ("tensor", "dim"):
        changed.append("nanstd takes something else")
    assert not changed, (
        f"TRL {trl.__version__} changed what tokenshift's trainer stands on: {'; '.join(changed)}. "
        "Look at trainer/grpo.py, trainer/resume and trainer/dynamic_sampling before widening the pin in "
        "pyproject.toml."
    )
