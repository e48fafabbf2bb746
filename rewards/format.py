r"""Whether a completion gives its answer in the form asked for: one `\boxed{}`."""

from typing import Any

from tokenshift.rewards.text import completion_text

BOX = "\\boxed{"


def boxed_answers(text: str) -> list[str]:
    r"""Contents of the outermost `\boxed{...}` in a text, in order; one that is never closed is left out."""
    answers: list[str] = []
    start = text.find(BOX)
    while start != -1:
        depth, end = 1, start + len(BOX)
        while end < len(text) and depth:
            if text[end] == "\\":  # an escaped brace, or a command
                end += 1
            elif text[end] in "{}":
                depth += 1 if text[end] == "{" else -1
            end += 1
        if not depth:
            answers.append(text[start + len(BOX) : end - 1])
        start = text.find(BOX, end)
    return answers


def format_reward(completions: list[str] | list[list[dict[str, str]]], **columns: Any) -> list[float | None]:
    r"""1 for a completion with exactly one `\boxed{}` that holds something, else 0; TRL's reward signature."""
    boxes = (boxed_answers(completion_text(completion)) for completion in completions)
    return [float(len(answers) == 1 and bool(answers[0].strip())) for answers in boxes]
