"""Files that a user may hand over by mistake: models, data, configs, functions, each wrong in one way."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

RAN = "ran.txt"
"""A file that code from a model's folder writes when it runs; no test may find it where the code is not trusted."""

OWN_CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path({ran!r}).write_text("the model's code ran")

class MineConfig(LlamaConfig):
    model_type = "mine"

class MineForCausalLM(LlamaForCausalLM):
    config_class = MineConfig
"""

REWARDS = """
import numpy as np
import torch

def raises(completions, **columns):
    numbers = []
    return numbers[3]

def too_few(completions, **columns):
    return [1.0] * (len(completions) - 1)

def nothing(completions, **columns):
    pass

def words(completions, **columns):
    return ["good"] * len(completions)

def one_number(completions, **columns):
    return 1.0

def infinite(completions, **columns):
    return [float("inf")] * len(completions)

def a_matrix(completions, **columns):
    return torch.ones(len(completions), 2)

def complex_numbers(completions, **columns):
    return [1j] * len(completions)

def needs_a_column(completions, difficulty):
    return [1.0] * len(completions)

def a_dictionary(completions, **columns):
    return {"reward": 1.0}

def exits(completions, **columns):
    raise SystemExit(0)

def tensors(completions, **columns):
    return torch.arange(len(completions)) % 2

def numpy_numbers(completions, **columns):
    return [np.float32(n % 2) for n, _ in enumerate(completions)]

def numpy_array(completions, **columns):
    return (np.arange(len(completions)) % 2).astype(bool)

NOT_A_FUNCTION = 3
"""

WEIGHTS = """
import torch
from tokenshift.trainer import register_weighting

@register_weighting(formula="w = 1")
def of_another_shape(tokens):
    return torch.ones(3)

@register_weighting(formula="w = 1")
def raises(tokens):
    return tokens.not_there

@register_weighting(formula="w = 1")
def text(tokens):
    return "heavy"

def undecorated(tokens):
    return torch.ones_like(tokens.logps)
"""

CRITERIA = """
from tokenshift.analysis import register_criterion

@register_criterion(range=(0, 1))
def raises(positions):
    return positions.nothing

@register_criterion(range=(0, 1))
def one_number(positions):
    return 0.5
"""

PROBLEMS = [{"prompt": f"{n} + 1 =", "solution": str(n + 1)} for n in range(12)]

DATA: dict[str, list[Any]] = {
    "good": PROBLEMS,
    "no_prompt": [{"question": row["prompt"], "solution": row["solution"]} for row in PROBLEMS],
    "no_solution": [{"prompt": row["prompt"]} for row in PROBLEMS],
    "no_gold": [{**row, "solution": None} for row in PROBLEMS],
    "number_prompts": [{**row, "prompt": 3} for row in PROBLEMS],
    "empty_prompt": [*PROBLEMS[:-1], {"prompt": "", "solution": "1"}],
    "missing_prompt": [*PROBLEMS[:-1], {"prompt": None, "solution": "1"}],
    "list_golds": [{**row, "solution": [row["solution"], "0"]} for row in PROBLEMS],
    "mapping_golds": [{**row, "solution": {"value": row["solution"]}} for row in PROBLEMS],
    "blank_golds": [{**row, "solution": "  "} for row in PROBLEMS],
    "conversations": [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in PROBLEMS],
    "wrong_turns": [{**row, "prompt": [{"author": "me", "text": row["prompt"]}]} for row in PROBLEMS],
    "long_prompts": [{**row, "prompt": "1 + " * 400 + "1 ="} for row in PROBLEMS],
    "one_row": PROBLEMS[:1],
    "long_golds": [*PROBLEMS[:-1], {"prompt": "1 + 1 =", "solution": 10**4000}],
    "empty_completion": [{**row, "completion": ""} for row in PROBLEMS],
}

RESPONSES: dict[str, list[Any]] = {
    "responses_no_completion": [{"prompt": "1 + 1 ="}],
    "responses_numbers": [{"prompt": 1, "completion": 2}],
    "responses_list": [["1 + 1 =", " 2"]],
    "responses_wrong_ids": [{"prompt_ids": [3, 4], "completion_ids": [10**6]}],
    "responses_text_ids": [{"prompt_ids": "3 4", "completion_ids": "5"}],
    "responses_wrong_verdict": [{"prompt": "1 + 1 =", "completion": " 2", "correct": "yes"}],
}

COMPARISON = """
config: pocket
seeds: [0, 1]
baseline: plain
variants: {plain: {advantage_weighting: none}, sigmoid: {advantage_weighting: sigmoid}}
evaluation: {datasets: [pocket], size: 4}
"""

BOMB = "".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}' if level else 'x'] * 9)}]\n" for level in range(30))
"""Less than 2 kB that stand for 9 to the power of 30 values."""

MERGE_BOMB = "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}\n" if level else "a0: &a0 {b: 1}\n"
    for level in range(30)
)

CONFIGS = {
    "a_list": "- learning_rate: 1e-4\n- seed: 1\n",
    "a_word": "pocket\n",
    "empty": "",
    "broken": "learning_rate: [1, 2\n",
    "unknown_field": "learning_rte: 1e-4\n",
    "wrong_type": "max_steps: many\n",
    "a_mapping_for_a_number": "max_steps: {a: 1}\n",
    "a_list_for_a_number": "seed: [1, 2]\n",
    "nan": "beta: .nan\n",
    "python_object": "seed: !!python/object/apply:os.system ['touch ran.txt']\n",
    "bomb": BOMB,
    "merge_bomb": MERGE_BOMB,
    "deep": "seed: " + "[" * 20_000 + "]" * 20_000 + "\n",
    "deep_block": "".join("  " * level + "a:\n" for level in range(150)),
    "itself": "seed: &a [*a]\n",
    "long": "seed: 1 #" + "x" * 2**19 + "\n",
    "digits": "seed: " + "9" * 5000 + "\n",
    "compare_bomb": BOMB + COMPARISON,
    "compare_deep": COMPARISON + "launch: " + "[" * 20_000 + "]" * 20_000 + "\n",
    "compare_no_variants": "config: pocket\nseeds: [0]\nbaseline: a\nevaluation: {datasets: [pocket]}\n",
    "compare_one_variant": COMPARISON.replace(", sigmoid: {advantage_weighting: sigmoid}", ""),
    "compare_no_baseline": COMPARISON.replace("baseline: plain", "baseline: other"),
    "compare_negative_seed": COMPARISON.replace("[0, 1]", "[0, -1]"),
    "compare_word_seed": COMPARISON.replace("[0, 1]", "[0, one]"),
    "compare_seed_twice": COMPARISON.replace("[0, 1]", "[1, 1]"),
    "compare_empty_seeds": COMPARISON.replace("[0, 1]", "[]"),
    "compare_unknown_setting": COMPARISON + "sedes: [1]\n",
    "compare_unknown_field": COMPARISON.replace("{advantage_weighting: sigmoid}", "{advantage_weightng: sigmoid}"),
    "compare_wrong_value": COMPARISON.replace("{advantage_weighting: sigmoid}", "{divergence_scale: -1}"),
    "compare_no_config": COMPARISON.replace("config: pocket", "config: not_there"),
    "compare_variant_path": COMPARISON.replace("sigmoid: {", "../up: {"),
    "compare_no_datasets": COMPARISON.replace("{datasets: [pocket], size: 4}", "{size: 4}"),
    "compare_list_evaluation": COMPARISON.replace("{datasets: [pocket], size: 4}", "[pocket]"),
    "compare_parallel": COMPARISON + "parallel: 0\n",
    "compare_reserved": COMPARISON.replace("{advantage_weighting: sigmoid}", "{output_dir: mine}"),
    "compare_a_list": "- config: pocket\n",
    "compare_twice": COMPARISON + "seeds: [3]\n",
    "compare_launch": COMPARISON + "launch: {config_file: not_there}\n",
}


class Runs:
    """An object whose pickle runs something when it is read carelessly."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.system, (f"touch {self.file}",)


def make_inputs(folder: Path) -> None:
    """Write all files into a folder, which becomes the folder that commands are started in."""
    for name, text in {"my_rewards": REWARDS, "my_weights": WEIGHTS, "my_criteria": CRITERIA}.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "my_broken.py").write_text("def right(completions, **columns):\n    return [1.0\n")
    (folder / "my_missing.py").write_text("import not_installed_anywhere\n")
    (folder / "configs").mkdir()
    for name, text in CONFIGS.items():
        (folder / "configs" / f"{name}.yaml").write_text(text)
    (folder / "configs" / "not_text.yaml").write_bytes(b"\xff\xfe\x00\x81")
    for name, rows in {**DATA, **RESPONSES}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "digits.jsonl").write_text('{"prompt": "1 + 1 =", "solution": ' + "9" * 5000 + "}\n")
    (folder / "deep.jsonl").write_text('{"prompt": "1 + 1 =", "solution": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    (folder / "empty.jsonl").write_text("")
    (folder / "empty.csv").write_text("prompt,solution\n")
    (folder / "broken.jsonl").write_text('{"prompt": "1 + 1 =", "solution"\n')
    (folder / "broken.parquet").write_bytes(b"PAR1 but not really")
    (folder / "data.txt").write_text("1 + 1 = 2\n")
    (folder / "a_file").write_text("not a folder\n")
    (folder / "a_folder").mkdir()
    (folder / "foreign").mkdir()
    (folder / "foreign" / "settings.json").write_text("[1, 2")
    make_models(folder / "models")


def make_models(folder: Path) -> None:
    """Tiny models of Llama's kind with pocket's tokenizer, whole and wrong."""
    import torch
    from helpers.tiny_sizes import SIZES
    from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

    from tokenshift.recipes.pocket.make_base import make_tokenizer

    tokenizer = make_tokenizer()
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), **SIZES, max_position_embeddings=128, **ends)
    model = LlamaForCausalLM(config)
    whole = folder / "whole"
    model.save_pretrained(whole)
    tokenizer.save_pretrained(whole)

    def copied(name: str) -> Path:
        return Path(shutil.copytree(whole, folder / name))

    def with_config(path: Path, **settings: Any) -> None:
        file = path / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))

    weights = load_file(whole / "model.safetensors")
    (copied("no_weights") / "model.safetensors").unlink()
    torn = copied("torn") / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1000])
    zeros = copied("zeros") / "model.safetensors"
    zeros.write_bytes(bytes(100))
    name = next(name for name in weights if "layers.1" in name)
    some = {key: value for key, value in weights.items() if key != name}
    save_file(some, copied("a_layer_less") / "model.safetensors", metadata={"format": "pt"})
    with_config(copied("other_sizes"), hidden_size=64, intermediate_size=16)
    with_config(copied("short"), max_position_embeddings=4)
    for file in copied("no_tokenizer").glob("token*"):
        file.unlink()
    (copied("list_config") / "config.json").write_text("[1, 2]")
    (copied("empty_config") / "config.json").write_text("")
    with_config(copied("unknown_kind"), model_type="nothing_of_the_kind", architectures=["NothingForCausalLM"])
    with_config(copied("wrong_numbers"), num_attention_heads="two")
    missing = copied("missing_part")
    (missing / "model.safetensors").rename(missing / "model-00001-of-00002.safetensors")
    parts = {key: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, key in enumerate(weights)}
    (missing / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    other = copied("other_words")
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"7"', '"seven"'))

    harmful = copied("pickle")
    (harmful / "model.safetensors").unlink()
    torch.save({"weights": Runs(folder.parent / RAN)}, harmful / "pytorch_model.bin")
    old = copied("old_pickle")
    (old / "model.safetensors").unlink()
    (old / "pytorch_model.bin").write_bytes(pickle.dumps(Runs(folder.parent / RAN)))
    good = copied("good_pickle")
    (good / "model.safetensors").unlink()
    torch.save(weights, good / "pytorch_model.bin")

    own = copied("own_code")
    (own / "modeling_mine.py").write_text(OWN_CODE.format(ran=str(folder.parent / RAN)))
    classes = {"AutoConfig": "modeling_mine.MineConfig", "AutoModelForCausalLM": "modeling_mine.MineForCausalLM"}
    with_config(own, model_type="mine", architectures=["MineForCausalLM"], auto_map=classes)

    generates = copied("own_generate") / "custom_generate"
    generates.mkdir()
    ran = str(folder.parent / RAN)
    (generates / "generate.py").write_text(f"open({ran!r}, 'w')\n\ndef generate(model, **options):\n    return None\n")

    encoder = folder / "encoder"
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(encoder)
    tokenizer.save_pretrained(encoder)

    lora = LoraConfig(task_type=TaskType.CAUSAL_LM, r=2, target_modules=["q_proj"])
    adapted = get_peft_model(LlamaForCausalLM.from_pretrained(whole), lora)
    for name, base in (("adapter", str(whole)), ("adapter_of_nothing", str(folder / "not_there"))):
        adapted.save_pretrained(folder / name)
        file = folder / name / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": base}))
    shutil.copytree(folder / "adapter", folder / "adapter_torn")
    (folder / "adapter_torn" / "adapter_model.safetensors").write_bytes(b"no weights")
    shutil.copytree(folder / "adapter", folder / "adapter_pickle")
    (folder / "adapter_pickle" / "adapter_model.safetensors").unlink()
    torch.save({"weights": Runs(folder.parent / RAN)}, folder / "adapter_pickle" / "adapter_model.bin")
    prompts = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=2)
    get_peft_model(LlamaForCausalLM.from_pretrained(whole), prompts).save_pretrained(folder / "learned_prompt")
    assert len(AutoTokenizer.from_pretrained(other)) == len(tokenizer)

    checkpoint = folder.parent / "runs" / "harmful" / "checkpoint-2"
    shutil.copytree(whole, checkpoint)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": 2, "log_history": []}))
    torch.save({"state": Runs(folder.parent / RAN)}, checkpoint / "optimizer.pt")
    for name in ("no_state", "harmful_folder"):
        shutil.copytree(checkpoint, folder.parent / "runs" / name / "checkpoint-2")
        (folder.parent / "runs" / name / "checkpoint-2" / "optimizer.pt").unlink()
    (folder.parent / "runs" / "no_state" / "checkpoint-2" / "trainer_state.json").write_text("{}")
    below = folder.parent / "runs" / "harmful_folder" / "checkpoint-2" / "global_step2"
    below.mkdir()
    torch.save({"state": Runs(folder.parent / RAN)}, below / "mp_rank_00_model_states.pt")
    foreign = folder.parent / "runs" / "earlier" / "checkpoint-2"
    foreign.mkdir(parents=True)
