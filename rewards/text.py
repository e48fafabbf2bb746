"""The text of a completion, in either of TRL's forms."""

from typing import Any


def completion_text(completion: str | list[dict[str, Any]]) -> str:
    """A plain completion itself, or the text of a conversation's last message; empty where there is none."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    if isinstance(content, list):  # in parts
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content or ""
