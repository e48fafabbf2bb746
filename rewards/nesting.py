"""How deeply a formula is nested, and whether that makes reading it hopeless.

The parser's time grows with the square of the depth: 20 powers of powers take seconds, and 100 minutes. math-verify
gives up after 5 seconds; what it reads within them is not hopeless.
"""

import re

BRACKET = re.compile(
    r"(?P<power>[_^]\s*\{)|(?P<opens>\\(?:\{|(?:lfloor|lceil|langle|begin)(?![a-zA-Z]))|[(\[{])"
    r"|(?P<closes>\\(?:\}|(?:rfloor|rceil|rangle|end)(?![a-zA-Z]))|[)\]}])|\\."
)
LEVELS_OF_POWER = 1.5  # a power or subscript takes as long as so many other levels
DEEP = 6.0  # levels from which on a formula is read in the fast way first
HOPELESS = 36.0  # levels beyond which only the fast way is tried


def levels(formula: str) -> float:
    """The depth of the brackets of a formula in LaTeX, powers and subscripts counted more."""
    open_levels: list[float] = []
    level = deepest = 0.0
    for match in BRACKET.finditer(formula):
        if match["power"] or match["opens"]:
            open_levels.append(LEVELS_OF_POWER if match["power"] else 1.0)
            level += open_levels[-1]
            deepest = max(deepest, level)
        elif match["closes"] and open_levels:
            level -= open_levels.pop()
    return deepest
