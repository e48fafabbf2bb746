"""Problems of every form as a model reads them, and the room that they leave."""

from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset

from tokenshift.analysis import Prompt, Sampling
from tokenshift.analysis.sampling.prompts import encode_problems, fitting_sampling, room_after
from tokenshift.recipes.pocket.make_base import make_tokenizer

CHAT = [{"role": "user", "content": "1 + 1 = ?"}]
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %} A{% endif %}"


def config(context: int | None) -> Any:
    text = SimpleNamespace() if context is None else SimpleNamespace(max_position_embeddings=context)
    return SimpleNamespace(get_text_config=lambda: text)


def test_texts_conversations_prompts_and_data_sets() -> None:
    tokenizer = make_tokenizer()
    text = "1 + 1 = ?"
    ids = list(tokenizer(text)["input_ids"])
    assert encode_problems([text], tokenizer) == [Prompt(0, text, ids)]
    assert encode_problems(Dataset.from_dict({"prompt": [text, text]}), tokenizer)[1] == Prompt(1, text, ids)
    given = Prompt(7, "seven", [5, 6])
    assert encode_problems([given, text], tokenizer) == [given, Prompt(1, text, ids)]
    with pytest.raises(ValueError, match=r"are conversations, but the tokenizer of 'mine' has no chat template"):
        encode_problems([CHAT], tokenizer, name="mine")
    tokenizer.chat_template = TEMPLATE
    (prompt,) = encode_problems([CHAT], tokenizer)
    assert prompt.text == text
    assert len(prompt.ids) > len(ids)  # the model's turn is opened


def test_room_and_settings_that_fit() -> None:
    prompts = [Prompt(0, "", [1] * 4), Prompt(1, "", [1] * 10)]
    assert room_after(prompts, config(None), 5000) is None
    assert room_after(prompts, config(16), 6) == 6
    with pytest.raises(ValueError, match=r"row 1 has 10 tokens, which leaves 6 of the 16 .*lower max_new_tokens"):
        room_after(prompts, config(16), 7)
    with pytest.raises(ValueError, match="leaves 0 of the 10 that the model reads; leave it out"):
        room_after(prompts, config(10), None)
    models = [SimpleNamespace(config=config(context)) for context in (None, 64, 50)]
    assert fitting_sampling(None, prompts, models) == Sampling(max_new_tokens=40)
    assert fitting_sampling(None, prompts, models[:1]) == Sampling()
    chosen = Sampling(top_p=1.0, max_new_tokens=40)
    assert fitting_sampling(chosen, prompts, models) is chosen
    with pytest.raises(ValueError, match="lower max_new_tokens"):
        fitting_sampling(Sampling(max_new_tokens=41), prompts, models)
