"""Tools, environments and a tiny vision-language model for GRPO's tests, all built here."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image
from transformers import (
    AutoTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from helpers.tiny_sizes import SIZES
from tokenshift.recipes.pocket.make_base import make_tokenizer

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: "
    "{% if m.content is string %}{{ m.content }}{% else %}{% for block in m.content or [] %}"
    "{% if block.type == 'image' %}<image>{% else %}{{ block.text }}{% endif %}{% endfor %}{% endif %}"
    "{% for call in m.tool_calls or [] %}{{ call.function.name }} {{ call.function.arguments | tojson }}{% endfor %}"
    "</s>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
"""A chat template that TRL accepts for tools: every part of a call shows, and earlier turns stay as they are."""


def calling_tokenizer(folder: str) -> Any:
    """A tokenizer in whose eyes a completion with a digit calls a tool, picked by the digit, with it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.response_template = {"made": "for tests"}

    def parse_response(ids: list[int], **options: Any) -> dict[str, Any]:
        text = tokenizer.decode(ids, skip_special_tokens=True)
        digit = next((int(character) for character in text if character.isdigit()), None)
        names = [tool.__name__ for tool in options["tools"]]
        if digit is None or not names:
            return {"role": "assistant", "content": text}
        function = {"name": names[digit % len(names)], "arguments": {"number": digit}}
        return {"role": "assistant", "content": text, "tool_calls": [{"type": "function", "function": function}]}

    tokenizer.parse_response = parse_response
    return tokenizer


def add(number: int) -> str:
    """Add one to a number.

    Args:
        number: The number.

    Returns:
        The sum.
    """
    return f"sum {number + 1}"


class Ledger:
    """An environment that remembers all that was done to it, over resets too.

    Attributes:
        events: what was called, by number of the reset.
        total: the sum of the numbers added since the last reset.
    """

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.total = 0

    def reset(self, **row: Any) -> str:
        """Begin anew."""
        self.events.append(("reset", row.get("start")))
        self.total = row.get("start") or 0
        return f" from {self.total}"

    def add(self, number: int) -> str:
        """Add a number.

        Args:
            number: The number.

        Returns:
            The total.
        """
        self.events.append(("add", number))
        self.total += number
        return f"total {self.total}"

    def get_reward(self) -> float:
        """The last digit of the total."""
        return float(self.total % 10) / 10


def conversations(size: int = 8, **columns: Any) -> Dataset:
    """Problems as messages."""
    prompts = [[{"role": "user", "content": f"add {number}"}] for number in range(size)]
    return Dataset.from_dict({"prompt": prompts, "start": list(range(size)), **columns})


def tiny_vlm(folder: Path) -> str:
    """Write a random Llava with pocket's tokenizer and images of 4 x 4 pixels in 4 patches."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        **SIZES,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=4,
        patch_size=2,
        projection_dim=16,
    )
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            text_config=text,
            vision_config=vision,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            vision_feature_layer=-1,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    model.save_pretrained(folder)
    size = {"height": 4, "width": 4}
    images = CLIPImageProcessorPil(size={"shortest_edge": 4}, crop_size=size)
    LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=2,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return str(folder)


def picture_problems(size: int = 8, *, column: bool = True) -> Dataset:
    """Problems with an image of one colour each, in a column `image` or in the messages themselves."""
    images = [Image.new("RGB", (4, 4), (30 * number, 255 - 30 * number, 7 * number)) for number in range(size)]
    if column:
        prompts = [[{"role": "user", "content": "name it"}] for _ in range(size)]
        return Dataset.from_dict({"prompt": prompts, "image": images})
    block = {"type": Value("string"), "text": Value("string"), "image": ImageFeature()}
    features = Features({"prompt": List({"role": Value("string"), "content": List(block)})})
    blocks = [[{"type": "image", "image": image}, {"type": "text", "text": "name it"}] for image in images]
    rows = [{"prompt": [{"role": "user", "content": content}]} for content in blocks]
    return Dataset.from_list(rows, features=features)
