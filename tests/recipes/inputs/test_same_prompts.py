"""Training, evaluation and analysis read the same prompt from the same row: TRL's trainer beside `encode_problems`."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from helpers.pocket_models import BASE
from helpers.tiny_training import SETTINGS, digit_reward
from tokenizers import processors
from transformers import AutoModelForCausalLM

from tokenshift.analysis.sampling.prompts import encode_problems
from tokenshift.recipes.inputs.problems import load_problem_set, load_problems
from tokenshift.recipes.pocket.make_base import make_tokenizer
from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer

LOOP = "{% for m in messages %}{{ '[' + m.role + ']' + m.content + ';' }}{% endfor %}"
TEMPLATES = {
    "no generation prompt": LOOP,
    "a generation prompt": LOOP + "{% if add_generation_prompt %}[A]{% endif %}",
    "a start token": "{{ bos_token }}" + LOOP + "{% if add_generation_prompt %}[A]{% endif %}",
    "an option": LOOP + "{% if add_generation_prompt %}[A]{% if brief %}?{% else %}...{% endif %}{% endif %}",
    "a system prompt of its own": ("{% if messages[0].role != 'system' %}[system]be good;{% endif %}" + LOOP + "[A]"),
}
KWARGS: list[dict[str, Any] | None] = [None, {"brief": True}]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    tokenizer = make_tokenizer()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    assert tokenizer.bos_token == "<s>"
    args = DivergenceGRPOConfig(output_dir=str(tmp_path_factory.mktemp("run")), **SETTINGS)
    rows = Dataset.from_list([{"prompt": "1+1="}] * 4)
    model: Any = AutoModelForCausalLM.from_pretrained(BASE)
    return DivergenceGRPOTrainer(model, digit_reward, args, train_dataset=rows, processing_class=tokenizer)


@pytest.mark.parametrize("kwargs", KWARGS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_conversations(trainer: Any, template: str, kwargs: dict[str, Any] | None) -> None:
    trainer.processing_class.chat_template = TEMPLATES[template]
    trainer.chat_template_kwargs = kwargs or {}
    turns = [{"role": "user", "content": "1+1="}]
    earlier = [*turns, {"role": "assistant", "content": "2"}, {"role": "user", "content": "2+2="}]
    system = {"role": "system", "content": "be brief"}
    prompts = [turns, [system, *turns], earlier, [system, *earlier]]
    trained, _, _ = trainer._tokenize_prompts(prompts)
    read = encode_problems(prompts, trainer.processing_class, chat_template_kwargs=kwargs)
    assert [prompt.ids for prompt in read] == [list(ids) for ids in trained]
    for prompt in read:
        assert prompt.ids.count(1) == ("start token" in template)
    if template == "an option":
        assert trainer.processing_class.decode(read[0].ids).endswith("?" if kwargs else "...")


def test_texts_and_rows_of_a_file(trainer: Any, tmp_path: Path) -> None:
    """Rows as training and evaluation load them, with a system prompt and a text around the problem."""
    tokenizer = trainer.processing_class
    tokenizer.chat_template, trainer.chat_template_kwargs = TEMPLATES["a generation prompt"], {}
    rows = [{"prompt": f"{n}+{n}=", "solution": str(2 * n)} for n in range(8)]
    Dataset.from_list(rows).to_json(str(tmp_path / "rows.jsonl"))
    for options in (
        {},
        {"prompt_template": "Q: {prompt} A:"},
        {"system_prompt": "be brief", "prompt_template": "Q: {prompt}"},
    ):
        name = str(tmp_path / "rows.jsonl")
        train, held_out = load_problems(name, train_split="train", test_split="test", eval_size=3, **options)
        looked_at = load_problem_set(name, split=None, size=None, **options)
        by_solution = {row["solution"]: row["prompt"] for row in (*train, *held_out)}
        trained, _, _ = trainer._tokenize_prompts([by_solution[row["solution"]] for row in looked_at])
        assert len(looked_at) == 8
        read = encode_problems(looked_at, tokenizer)
        assert [prompt.ids for prompt in read] == [list(ids) for ids in trained]
        assert isinstance(looked_at[0]["prompt"], list) == ("system_prompt" in options)


def test_a_prompt_that_the_tokenizer_ends_is_refused() -> None:
    tokenizer = make_tokenizer()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 2)])
    with pytest.raises(ValueError, match=r"ends the prompt of row 0 with its end token.*add_eos_token"):
        encode_problems(["1+1="], tokenizer)
