"""How deeply a formula is nested, and whether that makes reading it hopeless.

The parser's time grows with the square of the depth: 20 powers of a variable in one another take seconds, and 100
minutes. math-verify gives up after 5 seconds; what it reads within them is not hopeless.
"""

import re

BRACKET = re.compile(
    r"(?P<power>[_^]\s*\{)|(?P<opens>\\(?:\{|(?:lfloor|lceil|langle|begin)(?![a-zA-Z]))|[(\[{])"
    r"|(?P<closes>\\(?:\}|(?:rfloor|rceil|rangle|end)(?![a-zA-Z]))|[)\]}])|\\."
)
LETTER = re.compile(r"[a-zA-Z]")
DEEP = 6  # brackets in brackets from which on a formula is read in the fast way first
HOPELESS = 36  # brackets in brackets beyond which only the fast way is tried
MOST_POWERS = 20  # powers in powers, or subscripts, of variables


def depths(formula: str) -> tuple[int, int]:
    """How many brackets of a formula in LaTeX are in one another, and how many powers or subscripts."""
    is_power: list[bool] = []  # of the brackets that are open
    brackets = powers = most_brackets = most_powers = 0
    for match in BRACKET.finditer(formula):
        if match["power"] or match["opens"]:
            is_power.append(match["power"] is not None)
            powers += is_power[-1]
            brackets += not is_power[-1]
            most_brackets, most_powers = max(most_brackets, brackets), max(most_powers, powers)
        elif match["closes"] and is_power:
            was_power = is_power.pop()
            powers -= was_power
            brackets -= not was_power
    return most_brackets, most_powers


def is_hopeless_power(formula: str, powers: int) -> bool:
    """Whether a formula has too many powers of variables in one another; those of numbers alone are read quickly."""
    return powers > MOST_POWERS and LETTER.search(formula) is not None
