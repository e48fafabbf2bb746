"""The wordings of correct solutions to learn from; nothing heavy is imported."""

WORDINGS = ("own", "taught")
"""The wordings of pocket's solutions: as its base words them, or in other phrases."""


def check_wording(wording: str, name: str) -> None:
    """Refuse a wording that the data does not have.

    Args:
        wording: how the solutions are worded.
        name: the name of the data.

    Raises:
        ValueError: for an unknown wording, and for any but `own` of data other than pocket.
    """
    if wording not in WORDINGS:
        raise ValueError(f"wording={wording!r} is not known; choose {' or '.join(WORDINGS)}.")
    if wording != "own" and name != "pocket":
        raise ValueError(f"wording={wording!r} is for pocket's solutions; dataset_name={name!r} has only its own.")
