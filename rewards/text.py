"""The text of a completion, in either of TRL's forms."""


def completion_text(completion: str | list[dict[str, str]]) -> str:
    """A plain completion itself, or the content of a conversation's last message; empty where there is none."""
    if isinstance(completion, str):
        return completion
    return (completion[-1].get("content") or "") if completion else ""
