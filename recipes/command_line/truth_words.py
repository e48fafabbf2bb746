"""Words for true and false on a command line and in a config, as transformers reads them."""

import argparse

YES, NO = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")


def to_bool(word: str) -> bool:
    """A word as true or false, by the rule and with the message of `transformers.hf_argparser.string_to_bool`."""
    if word.lower() in (*YES, *NO):
        return word.lower() in YES
    pairs = ", ".join(f"{yes}/{no}" for yes, no in zip(YES, NO, strict=True))
    raise argparse.ArgumentTypeError(
        f"Truthy value expected: got {word} but expected one of {pairs} (case insensitive)."
    )
