"""Where the answer stands in a completion, and that looking for it takes no time on hostile text."""

import time

import pytest

from tokenshift.rewards.answer_kinds import read_answer
from tokenshift.rewards.answer_place import answer_in, closed_boxes


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"<think>\boxed{1}</think> \boxed{2}", "2"),
        (r"thought</think> \boxed{2}", "2"),
        (r"<think>\boxed{1}", None),
        (r"<think>\boxed{1}</think> That is all.", None),
        (r"\boxed{1} <think>or \boxed{2}", "1"),
        (r"<think>a</think> \boxed{1} <think>b</think> \boxed{2}", "2"),
        (r"\boxed{1}. So, in the end, \boxed{2}", "2"),
        (r"first \boxed{1}, then \boxed{2}", "1, 2"),
        (r"$x_1=\boxed{1}$ and $x_2=\boxed{2}$", "1, 2"),
        (r"$\boxed{(2, 2)} \quad \text{and} \quad \boxed{(6, 2)}$", "(2, 2), (6, 2)"),
        (r"\boxed{7} $\boxed{7}$", "7"),
        (r"Use \boxed{}. \boxed{3} (in \boxed{...})", "3"),
        (r"\boxed{\text{your answer}} \boxed{\phantom{2}} \boxed{3}", "3"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{3 \boxed{4}", "4"),
        (r"\\boxed{4}", "4"),
        ("So.\n#### 1,234", "1,234"),
        ("#### Step 1\nNothing", None),
        (r"The final answer is $\frac12$. I hope it is correct.", r"\frac12"),
        (r"Answer: \(5\) or \(6\)", "5, 6"),
        (r"The answer is not $5$.", None),
        ("The answer is (C).", "C"),
        ("**Answer:** B", "B"),
        ("So it is 17 + 17.\n\nAnswer: 34", "34"),
        ("Answer: 5\n**Answer: 34**\n", "34"),
        (r"Final answer: \sqrt{2}.", r"\sqrt{2}"),
        ("Answer: 34\nThat is all.", None),
        ("Answer: 34?", None),
        ("Answer: not 34", None),
        ("Answer: 34, not 35", None),
        ("Answer: 34 is wrong", None),
        ("My answer: 34", None),
        ("Answer:", None),
        ("The answer is A lot of work.", None),
        ("The answer is (A) or (B).", None),
        ("I was told 72.", None),
        ("", None),
    ],
)
def test_answer_in(completion: str, answer: str | None) -> None:
    assert answer_in(completion) == answer


def test_closed_boxes_have_their_places() -> None:
    text = r"a \boxed{1} b \fbox{\{2\}} c \boxed{\boxed{3}} d \boxed{4"
    assert [(text[start:end], content) for start, end, content in closed_boxes(text)] == [
        (r"\boxed{1}", "1"),
        (r"\fbox{\{2\}}", r"\{2\}"),
        (r"\boxed{\boxed{3}}", r"\boxed{3}"),
    ]


MANY = 5000
HOSTILE = [
    "Answer: x" + " " * 50 * MANY + "y",
    "Answer:" + "* ." * 20 * MANY,
    "\\boxed{" * MANY,
    "answer \\[" * MANY,
    "answer \\(" * MANY,
    "<think>" * MANY,
    "answer: " * MANY,
    "$" * MANY,
]
HOSTILE += ["option (A) " * MANY, "final answer is " * MANY]
HOSTILE += [
    f"\\boxed{{{inside}}}"
    for inside in ("1" * MANY, "(" * MANY, "\\frac" * MANY, "1=" * MANY, "sqrt(" * MANY, "a and " * 800, "(1," * 1500)
]


@pytest.mark.parametrize("completion", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_read_at_once(completion: str) -> None:
    start = time.process_time()
    answer = answer_in(completion)
    if answer is not None:
        read_answer(answer)
    assert time.process_time() - start < 3
