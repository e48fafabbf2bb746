r"""Which left sides of an equation only name a value: `x`, `AB`, `f(2)`, `\angle A`, `total cost`; and not `abcd`."""

import itertools
import re

GREEK = (
    r"\\(?:var)?(?:alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|upsilon"
    r"|phi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega|ell)(?![a-zA-Z])"
)
MARKED = (
    r"\\(?:overline|underline|widehat|hat|vec|bar|tilde|dot|overrightarrow|overset|mathbf|mathcal|mathbb|mathsf|mathit"
    r"|boldsymbol|bm|operatorname|overarc|arc|wideparen|text|mathscr)\*?\s*(?:\{[^{}]*\}|[A-Za-z])"
)
MARK = r"(?:\s*_\s*(?:\w|\\[a-zA-Z]+|\{[^{}=]*(?:\{[^{}]*\}[^{}=]*)*\})|'|\s*\^\s*(?:\*|\{\s*(?:\*|-1|\\prime)\s*\}))*"
SYMBOL = re.compile(rf"(?:{MARKED}|{GREEK}|[A-Z]{{2,6}}|[A-Za-z]){MARK}")
INSIDE = r"[^=<>]*"
FUNCTION = re.compile(
    rf"(?:{MARKED}|[fghFGHPENVSTQRp]|{GREEK}){MARK}\s*\({INSIDE}\)"
    rf"|\\(?:gcd|lcm|max|min|sup|inf|Pr|det|dim|deg|arg|lim)(?![a-zA-Z]){INSIDE}"
    rf"|(?:gcd|lcm|max|min|det|deg|dim)\s*\({INSIDE}\)"
    r"|[A-Z]\([A-Za-z\d]\)|n\s*\(\s*[A-Z][^=<>a-z]*(?:\\(?:cup|cap|setminus)[^=<>a-z]*)*\)"
)
SEQUENCE = re.compile(r"([a-z])(?:'|_\w)*\(\s*([tnxA-Z]|-?\d+)\s*\)")
"""A function of an argument that is a number or one of the usual letters: `a(n)`, `x(t)`, `y(0)`; not `x(y)`."""
FIGURE = re.compile(
    r"m?\s*\\(?:measured)?(?:angle|triangle|square|parallelogram|odot)\s*\{?\s*[A-Za-z\d]{1,6}'*\s*\}?"
    r"|[Aa]rea\s*\(?\s*(?:of\s*)?(?:\\triangle\s*)?[A-Z]{1,6}\s*\)?"
    r"|(?:\\?\|)\s*(?:[A-Z]{1,6}|\\(?:vec|overline|overrightarrow)\s*\{?\s*[a-zA-Z]{1,2}\s*\}?)\s*(?:\\?\|)"
    r"|\[\s*[A-Z]{3,6}\s*\]|\(\s*[A-Z]{3,6}\s*\)|\\?#\s*[A-Z]"
    r"|\\frac\s*\{d[a-z]?\}\s*\{d[a-z](?:\s*[a-z])?\}"
)
TUPLE = re.compile(rf"\(\s*{SYMBOL.pattern}\s*(?:,\s*{SYMBOL.pattern}\s*)+\)")

WORDS = frozenset(
    (
        *("ans", "answer", "result", "total", "sum", "area", "gcd", "lcm", "hcf", "gcf", "max", "min", "age"),
        *("day", "days", "cost", "costs", "time", "times", "rate", "rates", "speed", "mean", "mode"),
        *("median", "range", "value", "values", "avg", "average", "count", "number", "numbers", "length"),
        *("width", "height", "depth", "radius", "diameter", "perimeter", "volume", "base", "side", "sides"),
        *("edge", "edges", "face", "faces", "angle", "angles", "slope", "price", "prices", "profit", "loss"),
        *("tax", "tip", "tips", "money", "cash", "salary", "pay", "change", "ratio", "size", "mass"),
        *("weight", "force", "work", "power", "energy", "year", "years", "month", "months", "week", "weeks"),
        *("hour", "hours", "minute", "minutes", "second", "seconds", "mile", "miles", "way", "ways", "term"),
        *("terms", "degree", "degrees", "prob", "probability", "product", "difference", "quotient"),
        *("remainder", "output", "final", "left", "right", "first", "last", "next", "digit", "digits"),
        *("root", "roots", "key", "keys", "boys", "boy", "girl", "girls", "toys", "cards", "eggs", "egg"),
        *("bags", "cage", "bed", "bead", "beads", "box", "boxes", "men", "women", "people", "kids", "kid"),
        *("pens", "pen", "cats", "cat", "dogs", "dog", "cows", "cow", "hens", "hen", "pigs", "pig", "cars"),
        *("car", "bus", "buses", "ball", "balls", "cup", "cups", "book", "books", "apple", "apples", "score"),
        *("scores", "points", "point", "share", "shares", "item", "items", "page", "pages", "row", "rows"),
        *("fee", "fees", "tree", "trees", "sample", "mix", "dozen", "gain", "debt", "bill", "bills"),
        *("expected", "distance", "units", "unit", "pounds", "pies", "pie", "cakes", "bee", "bees", "deck"),
        *("decks", "cab", "cafe"),
    )
)
"""Words that name values; any other word must be built like one."""
JOINTS = frozenset(
    (
        *("a", "an", "and", "at", "by", "each", "for", "from", "his", "her", "in", "is", "its", "my", "of"),
        *("on", "our", "per", "that", "the", "their", "to", "with", "kg", "km", "lb", "oz"),
    )
)
PLAIN_WORDS = re.compile(r"[A-Za-z]+(?:[ \-][A-Za-z]+)*")
ONSET = (
    "(?:[bcdfghjklmnprstvw]|bl|br|ch|cl|cr|dr|fl|fr|gl|gr|ph|pl|pr|qu|sc|scr|sh|shr|sk|sl|sm|sn|sp|spl|spr|st|str|sw"
    "|th|thr|tr|tw|wh|wr|kn)?"
)
CODA = (
    "(?:[bcdfgklmnprstvw]|st|rt|nd|nk|rk|ld|lt|mp|ck|ss|ll|ff|ng|th|ch|sh|rd|rm|rn|rl|lk|lf|lm|ft|pt|ct|sk|sp|nt|nc|rc"
    "|rp|rs|ght|tch|dge|rch|nch|rth|nth|[bcdfgklmnprtw]s|sts|rts|nds|nks|rks|lds|lts|mps|cks|lls|ngs|ths|rds|rms|rns"
    "|nts|cts|fts)?"
)
SYLLABLES = re.compile(rf"(?:{ONSET}[aeiou]{{1,3}}{CODA})+")
SUCCESSIVE = tuple("abcdefghijklmnopqrstuvwxyz"[start : start + 3] for start in range(24))
POOR = (frozenset("abcdefg"), frozenset("aeiou"))  # letters that alone make no word which is not among `WORDS`
LONGEST_PRODUCT = 6  # letters of a product of variables that stands without signs
FEWEST_LETTERS = 4  # of a word that is not among `WORDS`


def names_a_value(left: str) -> bool:
    """Whether the left side of an equation is a name of what stands on its right, and no formula of variables."""
    left = left.strip()
    if match := SEQUENCE.fullmatch(left):
        return match.group(1) != match.group(2)
    if any(kind.fullmatch(left) for kind in (SYMBOL, FUNCTION, FIGURE, TUPLE)):
        return True
    return PLAIN_WORDS.fullmatch(left) is not None and _are_words(left.replace("-", " ").split())


def _are_words(words: list[str]) -> bool:
    if not any(_is_word(word) for word in words):
        return False
    return all(_is_word(word) or word.lower() in JOINTS or (len(words) > 1 and word.isupper()) for word in words)


def _is_word(text: str) -> bool:
    """Whether letters are a word, and not a product of variables such as `abcd`, `pqrs` or `axby`."""
    if not (text.islower() or text.istitle() or text.isupper()):
        return False
    word = text.lower()
    if word in WORDS:
        return True
    if len(word) < FEWEST_LETTERS:
        return False
    if len(word) > LONGEST_PRODUCT:
        return not all(one < other for one, other in itertools.pairwise(word))
    if (
        any(letters in word for letters in SUCCESSIVE)
        or not set(word) - set("abcdefg")
        or not set(word) - set("aeiou")
    ):
        return False
    return SYLLABLES.fullmatch(word) is not None
