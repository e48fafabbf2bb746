"""How deeply a formula is nested, and whether that makes reading it hopeless.

The parser's time grows with the square of the depth: 20 powers of a variable in one another take seconds, and 100
take minutes; so do brackets right inside brackets, and functions of functions. Roots, fractions and sums in brackets
are read quickly at any depth. math-verify gives up after 5 seconds; what it reads within them is not hopeless.
"""

import re

BRACKET = re.compile(
    r"(?P<power>[_^]\s*\{)|\\[{}]|\\(?:sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|lg|exp|left)\s*(?P<function>[(\[])"
    r"|(?P<opens>[(\[{])|(?P<closes>[)\]}])|\\."
)
LETTER = re.compile(r"[a-zA-Z]")
DEEP = 6  # brackets in one another; formulas with fewer are left as they are
MOST_BRACKETS = 36  # right inside one another, or of functions
MOST_POWERS = 20  # of variables in one another, or subscripts


def depths(formula: str) -> tuple[int, int]:
    """The depth of slow brackets in a LaTeX formula, and that of powers and subscripts.

    A bracket is slow where it stands right behind another one that opens, or is the argument of a function.
    """
    open_brackets: list[tuple[int, int]] = []  # what each adds to the two numbers
    brackets = powers = most_brackets = most_powers = 0
    last_opening = 0  # where the last bracket that opens ends: the beginning of the formula counts as one
    for match in BRACKET.finditer(formula):
        token = match.group()
        if match["closes"] or token == r"\}":
            if open_brackets:
                slow, power = open_brackets.pop()
                brackets, powers = brackets - slow, powers - power
        elif match["opens"] or match["power"] or match["function"] or token == r"\{":
            power = int(match["power"] is not None)
            inside = not formula[last_opening : match.start()].strip()
            slow = int(not power and (inside or match["function"] is not None))
            open_brackets.append((slow, power))
            brackets, powers = brackets + slow, powers + power
            most_brackets, most_powers = max(most_brackets, brackets), max(most_powers, powers)
            last_opening = match.end()
    return most_brackets, most_powers


def is_hopeless(formula: str) -> bool:
    """Whether reading a formula would take too long; powers of numbers alone are read quickly."""
    brackets, powers = depths(formula)
    return brackets > MOST_BRACKETS or (powers > MOST_POWERS and LETTER.search(formula) is not None)


def without_doubled_brackets(formula: str) -> str:
    """A formula that is deeply nested, with `(x)` for `((x))` and `{x}` for `{{x}}`; any other one as it is."""
    return _without_doubled(_without_doubled(formula, "()"), "{}")


def _without_doubled(formula: str, pair: str) -> str:
    opened: list[int] = []
    closing: dict[int, int] = {}  # where each bracket that opens is closed
    deepest = 0
    for position, character in enumerate(formula):
        if character not in pair or formula[position - 1 : position] == "\\":
            continue
        if character == pair[0]:
            opened.append(position)
            deepest = max(deepest, len(opened))
        elif opened:
            closing[opened.pop()] = position
    if deepest <= DEEP:
        return formula
    left_out = {
        position
        for start, end in closing.items()
        if closing.get(start + 1) == end - 1 and not formula.endswith("\\left", 0, start)
        for position in (start, end)
    }
    return "".join(character for position, character in enumerate(formula) if position not in left_out)
