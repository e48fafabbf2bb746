"""Models that bring code of their own, which runs only where the user trusts it; nobody is asked on a terminal."""

TRUST = "trust_remote_code"
"""The option by which the code that comes with a model may run."""


def needs_own_code(error: BaseException) -> bool:
    """Whether transformers refused a model, or its tokenizer, since it would have to run code that comes with it."""
    return f"{TRUST}=True" in str(error)


def own_code_text(model: str) -> str:
    """The error message for a model that needs code of its own, in one line.

    Args:
        model: the model, with the setting that names it.
    """
    return (
        f"{model} needs code of its own, which comes with the model and can do anything here: read it, and give "
        f"--{TRUST} true ({TRUST}=True in Python) to run it, or name another model."
    )
