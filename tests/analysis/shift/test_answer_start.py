"""The token in which the final answer begins, however the text is cut into tokens."""

import numpy as np
import pytest

from tokenshift.analysis.shift.answer_start import answer_start


@pytest.mark.parametrize(
    ("tokens", "index"),
    [
        (["So ", "\\", "boxed", "{4}"], 1),
        (["\\boxed{1}", " no ", "\\boxed", "{2}"], 2),
        (["The", " answer", " is", " 4"], 0),
        (["####", " 4", " \\fbox{5}"], 2),
        (["4"], None),
        ([], None),
        (["", "\\boxed{", ""], 1),
    ],
)
def test_answers_are_found(tokens: list[str], index: int | None) -> None:
    assert answer_start(tokens) == index


@pytest.mark.parametrize("seed", range(5))
def test_cutting_a_text_otherwise_finds_the_same_letter(seed: int) -> None:
    text = r"First \boxed{1}. #### 2, so the answer is \boxed {42} and no more"
    cuts = np.sort(np.random.default_rng(seed).integers(0, len(text), 12))
    tokens = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    index = answer_start(tokens)
    assert index is not None
    begin = len("".join(tokens[:index]))
    assert begin <= text.rindex(r"\boxed") < begin + len(tokens[index])
