"""When two models may be compared."""

import copy

import pytest

from tokenshift.analysis.divergence.vocabulary import shared_vocabulary
from tokenshift.recipes.pocket.make_base import make_tokenizer


def test_same_tokenizer_padded_heads() -> None:
    tokenizer, again = make_tokenizer(), make_tokenizer()
    size = len(tokenizer)
    assert shared_vocabulary(tokenizer, again, size, size) == (size, None)
    shared, note = shared_vocabulary(tokenizer, again, size + 64, size + 8)
    assert shared == size + 8
    assert note == f"The LM heads have {size + 64} and {size + 8} rows; the first {size + 8} are compared."


def test_different_tokenizers_are_refused_naming_the_first_difference() -> None:
    tokenizer, other = make_tokenizer(), copy.deepcopy(make_tokenizer())
    other.add_tokens(["new"])
    size = len(tokenizer)
    with pytest.raises(ValueError, match=f"differ first at id {size}: None and 'new'"):
        shared_vocabulary(tokenizer, other, size + 1, size + 1)


def test_head_shorter_than_the_vocabulary() -> None:
    tokenizer = make_tokenizer()
    for sizes, words in (
        ((10, 100), "has 10 rows: tokens were added to the RL model alone. Resize the base too"),
        ((100, 10), "has 10 rows: tokens were added to the base alone. Resize the RL model too"),
        ((10, 10), "has 10 rows: tokens were added to the tokenizer alone. Resize both models"),
    ):
        with pytest.raises(ValueError, match=f"shorter LM head {words}"):
            shared_vocabulary(tokenizer, make_tokenizer(), *sizes)
