r"""One spelling for what LaTeX, Unicode and plain text spell in many ways; the value is left as it is.

`\dfrac12`, `\frac{1}{2}` and `$\tfrac 1 2$` become the same text; so do `1,000`, `1\,000`, `1{,}000` and `1000`.
"""

import re

CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2013\u2014\ufe63\uff0d\u2010\u2011\u2012", "-"),
        **dict.fromkeys(
            "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\t\n\r", " "
        ),
        **dict.fromkeys("\u200b\u200c\u200d\ufeff\u2060\u2061\u2062\u200e\u200f", ""),
        **dict.fromkeys("\u2019\u2018\u00b4`", "'"),
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
        "（": "(",
        "）": ")",
        "［": "[",
        "］": "]",
        "，": ",",
        "：": ":",
        "；": ";",
        "。": ".",
        "＝": "=",
        "＋": "+",
        "％": "%",
        "×": r"\times ",
        "·": r"\cdot ",
        "⋅": r"\cdot ",
        "∙": r"\cdot ",
        "÷": r"\div ",
        "±": r"\pm ",
        "∓": r"\mp ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "≈": r"\approx ",
        "∞": r"\infty ",
        "∪": r"\cup ",
        "∩": r"\cap ",
        "∈": r"\in ",
        "∅": r"\emptyset ",
        "ø": r"\emptyset ",
        "∠": r"\angle ",
        "△": r"\triangle ",
        "→": r"\to ",
        "π": r"\pi ",
        "θ": r"\theta ",
        "α": r"\alpha ",
        "β": r"\beta ",
        "γ": r"\gamma ",
        "λ": r"\lambda ",
        "μ": r"\mu ",
        "σ": r"\sigma ",
        "φ": r"\phi ",
        "ω": r"\omega ",
        "Δ": r"\Delta ",
        "ℝ": r"\mathbb{R}",
        "°": r"^\circ ",
        "′": "'",
        "″": "''",
        "⟨": r"\langle ",
        "⟩": r"\rangle ",
        "∗": "*",
        "\u2044": "/",
        "\u2215": "/",
        "½": " 1/2",
        "⅓": " 1/3",
        "⅔": " 2/3",
        "¼": " 1/4",
        "¾": " 3/4",
        "⅕": " 1/5",
        "⅖": " 2/5",
        "⅗": " 3/5",
        "⅘": " 4/5",
        "⅙": " 1/6",
        "⅚": " 5/6",
        "⅛": " 1/8",
        "⅜": " 3/8",
        "⅝": " 5/8",
        "⅞": " 7/8",
    }
)
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
ROOT = re.compile(r"√\s*(\d+|[a-zA-Z]|\([^()]*\))")

DOLLAR = re.compile(r"(?<!\\)\$")
PRICE = re.compile(r"(?<!\\)\$(?=\s?[-+]?[\d.])")
DELIMITER = re.compile(r"(?<!\\)\\[()\[\]]")
DOUBLED = re.compile(r"\\\\(?=[a-zA-Z{}])")  # the backslash of a command, escaped once too often
REMOVED = re.compile(
    r"(?<!\\)\\!\s*|\\(?:left|right)\.|\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits"
    r"|left|right|[bB]igg?[lrm]?|strut|bf|large|Large|LARGE|huge|Huge)(?![a-zA-Z])|\\(?:text)?color\s*\{[^{}]*\}"
)
SPACES = re.compile(
    r"(?<!\\)\\[,;: >]|~|\\q?quad(?![a-zA-Z])|\\(?:hspace|vspace|h?phantom)\*?\{[^{}]*\}|\\enspace(?![a-zA-Z])"
)
COMMANDS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac", "ffrac"), r"\frac"),
    **dict.fromkeys(("dbinom", "tbinom"), r"\binom"),
    **dict.fromkeys(
        ("textbf", "textit", "textrm", "textnormal", "textsf", "texttt", "mathrm", "mbox", "emph"), r"\text"
    ),
    **dict.fromkeys(("leq", "leqslant", "leqq"), r"\le"),
    **dict.fromkeys(("geq", "geqslant", "geqq"), r"\ge"),
    "neq": r"\ne",
    "lt": "<",
    "gt": ">",
    "degree": r"^\circ",
    "lbrace": r"\{",
    "rbrace": r"\}",
    "varnothing": r"\emptyset",
    "lbrack": "[",
    "rbrack": "]",
    "lparen": "(",
    "rparen": ")",
    "colon": ":",
    "dollar": r"\$",
    "langle": "(",
    "rangle": ")",
    "ldots": r"\dots",
    "cdots": r"\dots",
    "ast": "*",
    "pounds": "£",
    "euro": "€",
    "lvert": "|",
    "rvert": "|",
}
COMMAND = re.compile(rf"\\({'|'.join(sorted(COMMANDS, key=len, reverse=True))})(?![a-zA-Z])")
TEXT_ENVELOPE = re.compile(r"\\text\s*\{([^{}\\]*)\}")
SHORT_WORD = re.compile(r"[a-z]{2,3}")  # bare, it would be a product of variables
DEGREE = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)")
PERCENT = re.compile(r"\s*(?:(?<!\\)%|\\%|\\text\s*\{\s*(?:%|\\%|percent)\s*\}|\b(?:percent(?:age)?|per cent|pct)\b)")
TIGHT_COMMA = re.compile(r"\s*\{\s*,\s*\}\s*|\{,\}")
SPACED_ENVELOPE = re.compile(r"\{\s+|\s+\}")
POWER = re.compile(r"\^\s*(-?\d\d+|-\d)")
PLAIN_POWER = re.compile(r"(?<=[\w)}\]])\s*\*\*\s*")
PARENTHESISED_POWER = re.compile(r"\^\s*\(([^(){}]*)\)")
PLAIN_ROOT = re.compile(r"(?<![\\a-zA-Z])sqrt\s*(?:\(([^()]*)\)|(\d+))")
INFINITY = re.compile(r"(?i)\b(?:(negative|minus)\s+|positive\s+|plus\s+)?infinity\b")
PLAIN_PI = re.compile(r"(?<![\\a-zA-Z])pi(?![a-zA-Z])")
TIMES = re.compile(r"(?<=[\w)}\]])\s*\*\s*(?=[\w(\\{])")
ARGUMENTS = re.compile(
    r"\\frac\s*(?:(\d)\s*(\d)(?!\d)|(\d)\s+(\d+)|(\d)\s*(?=\{)|(\d)\s*([a-zA-Z])(?![a-zA-Z])|([a-zA-Z])\s*(\d))"
)
SECOND_ARGUMENT = re.compile(r"(\\frac\s*\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})\s*(\d|[a-zA-Z](?![a-zA-Z]))")
BARE_ROOT = re.compile(r"\\sqrt\s*(\d|[a-zA-Z](?![a-zA-Z])|\\[a-z]+)")
LEAD_IN = re.compile(
    r"(?i)\A(?:(?:so|thus|hence|therefore),?\s+)?(?:the |our |my )?(?:final |correct )?answer(?: is)?\s*[:=]?\s*"
    r"|\A\\text\s*\{\s*(?:the |final )*answer(?: is)?\s*[:=]?\s*\}\s*"
    r"|\A[=≈:]\s*|\A\\approx\s*"
)
TRAILING = re.compile(r"[.,;:\s\\]+$")
MULTIPLE_SPACES = re.compile(r" {2,}")
THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+")
COMMA_RUN = re.compile(r"(?<![\w.,])\d+(?:,\d+)+(?!\w|,\d)")
SPACED_THOUSANDS = re.compile(r"(?<![\w.,^_\\}])(?<!\d )[1-9]\d{0,2}(?: \d{3})+(?!\d| ?/| \d)")
DOTTED_THOUSANDS = re.compile(r"(?<![\w.,])[1-9]\d{0,2}(?:\.\d{3})+(?![\d.])")
SEVERAL_DOTS = re.compile(r"(?<![\w.,])([1-9]\d{0,2}(?:\.\d{3}){2,})(?:,(\d+))?(?![\d.,])")
DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")
OPENINGS, CLOSINGS = "([{", ")]}"
COMMON_LOGARITHM = re.compile(r"\\lg(?![a-zA-Z])")
NATURAL_LOGARITHM = re.compile(r"\\log\s*_\s*(?:e(?![a-zA-Z])|\{\s*e\s*\})")
COUNT = r"(?:\d+|[a-z]|\{\s*[\da-z+\- ]+\s*\})"
OF = r"(?:(?P<kind>[CPA])|\\text\s*\{\s*(?P<upright>[CPA])\s*\})"
CHOSEN = (
    re.compile(rf"(?<![a-zA-Z_}}\\]){OF}\s*_\s*(?P<n>{COUNT})\s*\^\s*(?P<k>{COUNT})(?![!'(])"),
    re.compile(rf"(?<![a-zA-Z_}}\\]){OF}\s*\^\s*(?P<k>{COUNT})\s*_\s*(?P<n>{COUNT})(?![!'(])"),
    re.compile(rf"(?:\{{\s*\}}\s*|(?<![\w}})\]\\]))[_^]\s*(?P<n>{COUNT})\s*{OF}\s*_\s*(?P<k>{COUNT})(?![!'(])"),
)
"""Numbers of combinations and arrangements: `C_{10}^3`, `C^3_{10}` and `{}_{10}C_3`; `P` and `A` alike."""
BARE_BINOMIAL = re.compile(r"\\binom\s*([\da-z])\s*([\da-z])(?![\w{])")
UPRIGHT_NUMBER = re.compile(r"\\(?:mathbf|boldsymbol|bm|bold|mathit|mathsf|underline)\s*\{([^{}A-Za-z\\]*)\}")
NAMED_FUNCTION = re.compile(
    r"\\operatorname\s*\{\s*((?:arc)?(?:sin|cos|tan|cot|sec|csc)|ln|log|exp|gcd|lcm|max|min)\s*\}"
)
CONSTANT = re.compile(r"(?<=[\d+\-}) ])\\text\s*\{\s*([ie])\s*\}")
CHOOSE = re.compile(r"\{\s*([^{}]+?)\s*\\choose\s*([^{}]+?)\s*\}")


def spelled(text: str, decimal_comma: bool = False) -> str:
    r"""The text in one spelling, without delimiters, lead-ins such as "The answer is" and final punctuation.

    Args:
        text: an answer, plain or in LaTeX.
        decimal_comma: `1,5` is one and a half and `1.000` a thousand; else `1,000` is a thousand, and any other comma
            separates.
    """
    text = _characters(text).strip()
    if "$" in text:
        only_prices = len(DOLLAR.findall(text)) == len(PRICE.findall(text))
        text = PRICE.sub(r"\\$", text) if only_prices else DOLLAR.sub(" ", text)
    text = LEAD_IN.sub("", text.strip(" *"), count=1)
    if "\\" in text:
        if "\\\\" in text and "\\begin" not in text:
            text = DOUBLED.sub(r"\\", text)
        text = DELIMITER.sub("", text)
        text = COMMAND.sub(lambda match: COMMANDS[match.group(1)], text)
        text = REMOVED.sub("", text)
        text = SPACES.sub(" ", text)
        text = TIGHT_COMMA.sub(",", text)
        text = _arguments(text)
        text = NATURAL_LOGARITHM.sub(r"\\ln ", COMMON_LOGARITHM.sub(r"\\log_{10} ", text))
        text = CHOOSE.sub(r"\\binom{\1}{\2}", text)
        text = BARE_BINOMIAL.sub(r"\\binom{\1}{\2}", text)
        text = NAMED_FUNCTION.sub(r"\\\1", UPRIGHT_NUMBER.sub(r"\1", text))
        text = CONSTANT.sub(r"\1", text)
    elif "{" in text:
        text = TIGHT_COMMA.sub(",", text)
    if text.startswith("{") and text.endswith("}") and "," in text and "{" not in text[1:]:
        text = f"\\{text[:-1]}\\}}"  # a set, of which the backslashes were left out
    text = PERCENT.sub(r"\\%", text)
    text = DEGREE.sub(r"^\\circ", text)
    text = MULTIPLE_SPACES.sub(" ", SPACED_ENVELOPE.sub(lambda match: match.group().strip(), text)).strip()
    text = TRAILING.sub("", text).strip()
    if (envelope := TEXT_ENVELOPE.fullmatch(text)) and not SHORT_WORD.fullmatch(envelope.group(1).strip()):
        text = TRAILING.sub("", envelope.group(1).strip()).strip()
    if "=" in text:
        text = text.replace("<=", "\\le ").replace(">=", "\\ge ").replace("!=", "\\ne ")
    if "nfinity" in text:
        text = INFINITY.sub(lambda match: "-\\infty" if match.group(1) else "\\infty", text)
    if "sqrt" in text:
        text = PLAIN_ROOT.sub(lambda match: f"\\sqrt{{{match.group(1) or match.group(2)}}}", text)
    if "pi" in text:
        text = PLAIN_PI.sub(r"\\pi ", text)
    if "_" in text:
        for chosen in CHOSEN:
            text = chosen.sub(_chosen, text)
    if "^" in text or "*" in text:
        text = PARENTHESISED_POWER.sub(r"^{\1}", PLAIN_POWER.sub("^", text))
        text = TIMES.sub(r"\\cdot ", POWER.sub(r"^{\1}", text))
    if decimal_comma:
        text = DECIMAL_COMMA.sub(".", DOTTED_THOUSANDS.sub(lambda match: match.group().replace(".", ""), text))
    if text.count(".") > 1:
        text = SEVERAL_DOTS.sub(
            lambda match: match.group(1).replace(".", "") + (f".{match.group(2)}" if match.group(2) else ""), text
        )
    text = SPACED_THOUSANDS.sub(lambda match: match.group().replace(" ", ""), text)
    return text if decimal_comma else _without_thousands(text)


def _characters(text: str) -> str:
    """The text in ASCII, so far as it is mathematics."""
    if not text.isascii():
        text = RAISED.sub(lambda match: "^{" + match.group().translate(SUPERSCRIPTS) + "}", text)
        text = LOWERED.sub(lambda match: "_{" + match.group().translate(SUBSCRIPTS) + "}", text)
        text = ROOT.sub(lambda match: r"\sqrt{" + match.group(1).strip("()") + "}", text)
        return text.translate(CHARACTERS)
    return text.replace("\n", " ").replace("\t", " ").replace("\r", " ")


def _arguments(text: str) -> str:
    r"""Braces around the arguments of `\frac` and `\sqrt` that are written without."""
    if "\\sqrt" in text:
        text = BARE_ROOT.sub(r"\\sqrt{\1}", text)
    if "\\frac" in text:
        text = ARGUMENTS.sub(_braced_fraction, text)
        text = SECOND_ARGUMENT.sub(r"\1{\2}", text)
    return text


def _braced_fraction(match: re.Match[str]) -> str:
    return "\\frac" + "".join(f"{{{group}}}" for group in match.groups() if group is not None)


def _chosen(match: re.Match[str]) -> str:
    """A number of combinations or arrangements as a formula; the text itself where it can be none, such as `C_1^2`."""
    count, taken = (match[name].strip("{} ") for name in ("n", "k"))
    if count.isdecimal() and not (taken.isdecimal() and 2 <= int(count) >= int(taken)):
        return match.group()
    if (match["kind"] or match["upright"]) == "C":
        return f"\\binom{{{count}}}{{{taken}}}"
    if count.isdecimal():
        times = " \\cdot " if match.string[: match.start()].rstrip()[-1:].isdecimal() else ""
        return f"{times}\\frac{{{count}!}}{{{int(count) - int(taken)}!}}"
    taken = taken if re.fullmatch(r"\w+", taken) else f"({taken})"
    whole = count if len(count) == 1 else f"({count})"
    return f"\\frac{{{whole}!}}{{({count}-{taken})!}}"


def _without_thousands(text: str) -> str:
    """Commas between thousands are removed: within brackets, only where a comma with a space separates there."""
    if "," not in text:
        return text
    brackets: list[tuple[str, int]] = []
    inside: dict[int, bool] = {}  # position of a comma -> whether brackets that separate by commas are around it
    spaced: set[int] = set()  # openings of brackets in which a comma with a space, or a semicolon, stands
    around: dict[int, int] = {}
    for position, character in enumerate(text):
        if character in OPENINGS:
            set_brace = character == "{" and text[position - 1 : position] == "\\"
            brackets.append((character if character != "{" or set_brace else "", position))
        elif character in CLOSINGS and brackets:
            brackets.pop()
        elif character in ",;":
            opening = next((start for kind, start in reversed(brackets) if kind), -1)
            inside[position], around[position] = opening >= 0, opening
            if character == ";" or text[position + 1 : position + 2] == " ":
                spaced.add(opening)

    def joined(match: re.Match[str]) -> str:
        comma = match.start() + match.group().index(",")
        separates = inside[comma] and around[comma] not in spaced
        return match.group() if separates or not THOUSANDS.fullmatch(match.group()) else match.group().replace(",", "")

    return COMMA_RUN.sub(joined, text)


def without_spaces(text: str) -> str:
    """The text without spaces, but for those that hold two words or two numbers apart."""
    return re.sub(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])", "", text)
