"""One architecture of each kind: what the project says of it is right, or it says in words that it does not."""

import pytest
from helpers.architecture_table import FAILED, REFUSED, RIGHT, WRONG, _page, verdicts
from helpers.architectures import ARCHITECTURES, NOT_BUILT

KINDS = {
    "llama": "plain",
    "qwen3_moe": "mixture of experts",
    "gpt2": "absolute positions",
    "opt": "absolute positions, and a projection of the states",
    "bart": "a decoder of an encoder-decoder",
    "bert": "an encoder as a decoder",
    "xlnet": "reads later tokens",
    "bloom": "ALiBi",
    "mpt": "ALiBi, without a base_model",
    "gemma2": "a cap on the logits, sliding windows",
    "cohere": "a factor on the logits",
    "granite": "a divisor of the logits",
    "minicpm3": "a factor on the states",
    "modernbert-decoder": "a dense layer and a norm before the head",
    "mistral": "sliding windows",
    "gemma3": "a model of text and images",
    "llama4": "a model of text and images, chunked attention",
    "mamba": "recurrent",
    "rwkv": "recurrent, blind to padding",
    "jamba": "recurrent and attention",
    "recurrent_gemma": "recurrent and attention, a cap on the logits",
    "reformer": "attention by hashing",
}


@pytest.mark.parametrize("model_type", KINDS)
def test_every_part_is_right_or_refuses(model_type: str) -> None:
    cells = verdicts(model_type)
    assert not {part: cell for part, cell in cells.items() if cell[0] in (WRONG, FAILED)}


def test_the_page_gives_each_reason_once() -> None:
    cells = {"scoring": (RIGHT, ""), "sampling": (REFUSED, "A1ForCausalLM is off by up to 2.5 nats")}
    probe = {"probe": (REFUSED, "A1ForCausalLM is off by up to 0.3 nats")}
    other = {"scoring": (RIGHT, ""), "sampling": (REFUSED, "B2LMHeadModel is off by up to 1e-3 nats"), **probe}
    page = _page({"a": cells | probe, "b": other}, {"c": "too large"})
    reasons = [line for line in page.split("## Why")[1].splitlines() if line.startswith("- refused")]
    assert reasons == ["- refused, sampling; probe: a, b: … is off by up to … nats"]
    assert "| b | right | refused | refused |" in page
    assert "- c: too large" in page


def test_the_kinds_are_known() -> None:
    assert set(NOT_BUILT) | set(KINDS) <= set(ARCHITECTURES)
