"""A parser of words for the commands that import nothing heavy: a wrong word is told in one line."""

import argparse
from typing import NoReturn


class PlainParser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` that raises ValueError with the message and where to read on."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError with the message."""
        raise ValueError(f"{message}; {self.prog} --help lists what it takes.")
