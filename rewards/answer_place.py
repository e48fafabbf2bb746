r"""The place of the answer in a completion.

The answer is, in this order: the last `\boxed{}` that holds something; the last line, where it begins with `####`; the
LaTeX that follows the word "answer"; the last line, where it begins with "Answer:", as DAPO's prompt asks for; a
choice such as "(B)" that follows "answer", "choice" or "option". Text in `<think>` is never searched.
"""

import re
from bisect import bisect_right

THINK = re.compile(r"<(/?)think(?:ing)?>")
BOX_OPENING = re.compile(r"\\(?:boxed|fbox)\s*\{")
BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
PLACEHOLDER = re.compile(
    r"(?i)[\s.?_~…]*|\\[lc]?dots|\\(?:phantom|hphantom)\{[^{}]*\}|\\(?:quad|square|Box|ldots)\b"
    r"|(?:\\text(?:bf|it)?\{)?\s*(?:[\[<(]?(?:the |your )?(?:final )?answer(?: here)?[\]>)]?)\s*\}?"
)
BETWEEN_BOXES = re.compile(r"(?:,|;)?(?:and|or|then)?(?:[A-Za-z](?:_\{?\w\}?)?=)?")
MATH_DELIMITERS = re.compile(
    r"\\[()\[\],;: ]|[\s$*]|\\q?quad(?![a-z])|\\text\{(?=\s*(?:and|or|,)\s*\})|(?<=and)\}|(?<=or)\}"
)
APART = re.compile(r"[\s$]*\n[\s$]*")
"""Nothing but an end of line between two boxes, which then are two answers."""
LONGEST_GAP = 60  # characters between two boxes that are one answer
LONGEST_CLAUSE = 120  # characters before a choice in which it may be rejected

ANCHORS = (
    (re.compile(r"(?i)final answer\b[^$\\]{0,100}?\bis\b"), 10),
    (re.compile(r"(?i)\banswer\s{0,20}\*{0,4}\s{0,20}:"), 50),
    (re.compile(r"(?i)\banswer"), 50),
)
"""Words that announce an answer in LaTeX, the plainest first, and how many characters after them it may begin."""
NEGATION = re.compile(
    r"(?i)\b(?:not|never|neither|nor|wrong|incorrect|false"
    r"|(?:cannot|\w+n['’]t)(?!\s+be\s+(?:simplified|reduced|expressed|written|factored)))\b"
    r"|\b(?:at (?:most|least)|exceeds?|between|twice|(?:half|double|triple|thrice)(?: of)?|than|below|above|under|over"
    r"|up to|unless|if)(?:\s+(?!is\b|are\b|was\b)\w+)?\s*$"
)
"""Words between an announcement and a formula that make it something else than the answer."""
LEADS_IN = re.compile(
    r"(?i)(?:\A|[^\w\s]|\b(?:is|are|be|was|been|being|equals?|equal(?:s|ing)? to|total of"
    r"|(?:simplifies|reduces|comes|evaluates|amounts|leads|goes|"
    r"works out|comes out|boils down) to|given by"
    r"|gives?|gets?|obtain|have|has|as|so|thus|therefore|hence|then|namely|simply|just"
    r"|exactly|precisely|indeed|actually|clearly|still|also|only|now|approximately|about|roughly|form|part"
    r"|problem|question|here|option|choice|both|either|all|x|y|n|with|that|where|number|value)"
    r"|\b(?:the|an?|our|my|this|these)\s+\w+)[\s*_({\[]*(?<! -)\Z"
)
"""The end of the words between an announcement and its formula: "is", "equals", a sign, "the number"."""
WRONG_ANSWER = re.compile(
    r"(?i)\b(?:wrong|incorrect|false|mistaken|(?:not|\w+n['’]t)(?: be)? (?:the|an?|my|our))"
    r"(?: (?:correct|right|final))?\s+$"
)
GOES_ON = re.compile(
    r"(?i)\s*\*{0,2}\s*(?:\?|(?:(?:less|more|fewer|greater|smaller|larger|bigger|higher|lower) than"
    r"|or (?:more|less|fewer)|plus|minus|divided|multiplied|added|subtracted|taken|raised|squared|cubed|modulo|mod"
    r"|factorial|out of|(?:is|are|was|seems|looks)(?:n['’]t| (?:not|never|wrong|incorrect|false|impossible))"
    r"|cannot|can['’]t|fails|at (?:most|least)|off|away from|if|unless)\b"
    r"|of\s+(?=[$\\\d])|times\s+(?=[$\\\d]|as|the))"
)
"""Words behind a formula that is not the answer: `$5$ less than $20$`, `$12$?`."""
FORMULA = re.compile(
    r"(?<!\\)\$\$(?P<a>[^$]+)\$\$|(?<!\\)\$(?P<b>(?:\\\$|[^\n$])+)\$"
    r"|\\\((?P<c>(?:[^\\\n]|\\(?![()]))+)\\\)|\\\[(?P<d>(?:[^\\]|\\(?![\[\]]))+)\\\]|(?P<e>-?\\frac\{-?\d+\}\{-?\d+\})",
    re.DOTALL,
)
NEXT_FORMULA = re.compile(r"\s*(?:,\s*)?(?:and|or|,)\s*(?=\\[(\[]|\$)")
PERCENT_AFTER = re.compile(r"\s*(?:\\?%|percent\b)")
LONGEST_FORMULA = 4000  # characters

ANSWER_LINE = re.compile(r"(?i)\s*\*{0,2}(?:The )?(?:Final )?Answer\s?\*{0,2}:\*{0,2}(?P<answer>.*)")
"""A line such as `Answer: 34`, also in bold."""

CHOICE = re.compile(
    r"(?i:\b(?P<word>answer|choice|option)s?\b\*{0,2}(?P<says>\s{1,20}(?:is|are)\b|\s{0,20}:)?"
    r"(?P<which>\s{1,20}(?:choice|option)\b)?)"
    r"\s{0,20}:?\s{0,20}[*$]{0,4}(?:\\text(?:bf)?\{)?\s{0,20}"
    r"(?:\((?P<a>[A-Ja-j])\)|(?P<b>[A-J])(?=[*.$}]*\s*(?:$|\n)|[.)]))"
)
SAID_RIGHT = re.compile(
    r"[*$})\s]*(?:is|must be|has to be)\s+(?:indeed\s+|the\s+|our\s+)*(?:correct|right|true|best|answer)\b", re.I
)
SAID_WRONG = re.compile(
    r"(?i)[.*$})\s]*(?:\?|(?:is|are|was|seems|looks|can|could|does|would|must|should)(?:n['’]t| not| never)\b"
    r"|(?:is|are|was|seems|looks)\s+(?:\w+\s+)?(?:wrong|incorrect|false|bad|impossible|eliminated|excluded|out|ruled"
    r"|invalid|rejected|not)\b|(?:cannot|can['’]t|fails?|contradicts)\b)"
)
CLAUSE_END = re.compile(r"[.!?\n;,:]")
DOUBT = re.compile(
    r"(?i)\b(?:not|never|neither|nor|cannot|\w+n['’]t|eliminat\w+|rul\w+ out|reject\w*|discard\w*|exclud\w+"
    r"|doubt\w*|avoid\w*|cross\w* out|strik\w+"
    r"|wrong|incorrect|false|except|unlike|unless|if|instead of|rather than)\b"
)
SENTENCE_END = re.compile(r"[.!?\n]")
SINCE = re.compile(r"(?i)\b(?:since|because|as|while|whereas|so)\b")
CALLED_WRONG = re.compile(
    r"(?i)\b(?:wrong|incorrect|false|impossible|not (?:the|an?|correct|right|true|possible)|contradict\w*)\b"
)
SO = re.compile(r"(?i)\b(?:so|thus|hence|therefore|but|then|(?:hard|difficult) to \w+ that|no doubt)\b")
OTHER_CHOICE = re.compile(r"[*$}]*\s*(?:,|/|\bor\b|\band\b|&)\s*(?:or\s|and\s)?[*$(]*[A-J]\b")
LONE_CHOICE = re.compile(r"[\s*$]*\(([A-Ja-j])\)[\s*$.]*")


def answer_in(completion: str) -> str | None:
    """The text of the completion's answer; None where there is none."""
    text = _after_thinking(completion).replace("\\\\boxed", "\\boxed")
    for take in (_boxed, _hashed, _announced, _on_answer_line, _chosen):
        if (answer := take(text)) is not None and answer.strip():
            return answer.strip()
    return None


def closed_boxes(text: str) -> list[tuple[int, int, str]]:
    """Start, end and content of each outermost box that is closed, in order; takes time linear in the text."""
    open_braces: list[tuple[int, int]] = []  # where a box begins, or -1, and where the content begins
    boxes: list[tuple[int, int, str]] = []
    for match in BRACE.finditer(text):
        token = match.group()
        if token == "{":
            open_braces.append((-1, match.end()))
        elif token == "}":
            if open_braces:
                start, content = open_braces.pop()
                if start >= 0:
                    while boxes and boxes[-1][0] > start:  # those inside
                        boxes.pop()
                    boxes.append((start, match.end(), text[content : match.start()]))
        elif BOX_OPENING.fullmatch(token):
            open_braces.append((match.start(), match.end()))
    return boxes


def _after_thinking(text: str) -> str:
    """The text after the last `</think>`, up to a `<think>`; empty where thinking is begun and never closed."""
    if "<" not in text:
        return text
    tags = list(THINK.finditer(text))
    closings = [tag for tag in tags if tag.group(1)]
    start = closings[-1].end() if closings else 0
    end = next((tag.start() for tag in tags if tag.start() >= start), len(text))
    return text[start:end]


def _boxed(text: str) -> str | None:
    """The content of the last box that holds something, with those right before it that are listed with it."""
    boxes = [box for box in closed_boxes(text) if not PLACEHOLDER.fullmatch(box[2].strip())]
    if not boxes:
        return None
    contents = [boxes[-1][2]]
    for (_, end, content), (start, _, _) in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        if (
            APART.fullmatch(text, end, start)
            or start - end > LONGEST_GAP
            or not BETWEEN_BOXES.fullmatch(MATH_DELIMITERS.sub("", text[end:start]))
        ):
            break
        contents.append(content)
    listed = list(dict.fromkeys(content.strip() for content in reversed(contents)))
    return ", ".join(listed)


def _hashed(text: str) -> str | None:
    """The text after `####` in the last line, as in GSM8K."""
    last = text.rstrip().rpartition("\n")[2].strip()
    return last[4:] if last.startswith("####") else None


def _on_answer_line(text: str) -> str | None:
    """The text after "Answer:" in the last line, as in DAPO's prompt; None for a letter, and where it is doubted."""
    line = ANSWER_LINE.fullmatch(text.rstrip().rpartition("\n")[2])
    if line is None or len(line.group()) > LONGEST_FORMULA:
        return None
    answer = line["answer"].rstrip("*").rstrip(".").rstrip("*").strip()
    if "?" in answer or DOUBT.search(answer) or NEGATION.search(answer) or CHOICE.search(line.group()):
        return None
    return answer


def _announced(text: str) -> str | None:
    """The formula, or formulas in a list, after the last announcement of an answer."""
    if "$" not in text and "\\" not in text:
        return None
    formulas = list(FORMULA.finditer(text))
    starts = [formula.start() for formula in formulas]
    for anchor, gap in ANCHORS:
        for announcement in reversed(list(anchor.finditer(text))):
            index = bisect_right(starts, announcement.end() - 1)
            if index == len(starts) or starts[index] - announcement.end() > gap:
                continue
            if NEGATION.search(text, announcement.start(), starts[index]):
                continue
            if not LEADS_IN.search(text[announcement.end() : starts[index]]):
                continue
            if WRONG_ANSWER.search(text[max(0, announcement.start() - LONGEST_GAP) : announcement.start()]):
                continue
            answer, end = _listed_formulas(text, formulas[index:])
            if not GOES_ON.match(text, end):
                return answer
    return None


def _listed_formulas(text: str, formulas: list[re.Match[str]]) -> tuple[str, int]:
    """The first formula, with those after it that "and", "or" or commas join to it, and where they end."""
    contents: list[str] = []
    end = 0
    for formula in formulas:
        if contents:
            joint = NEXT_FORMULA.match(text, end)
            if joint is None or joint.end() != formula.start():
                break
        end = formula.end()
        content = next(group for group in formula.groups() if group is not None)
        if percent := PERCENT_AFTER.match(text, end):
            content, end = content + r"\%", percent.end()
        contents.append(content)
    return ", ".join(contents)[:LONGEST_FORMULA], end


def _chosen(text: str) -> str | None:
    """The letter of a multiple choice in prose; None where several are named."""
    if lone := LONE_CHOICE.fullmatch(text):
        return lone.group(1).upper()
    choices = [choice for choice in CHOICE.finditer(text) if not _is_rejected(text, choice)]
    # "The answer is (A)" counts before an option that is only mentioned
    choices = [choice for choice in choices if _announces(text, choice)] or choices
    if not choices or OTHER_CHOICE.match(text, choices[-1].end()):
        return None
    return (choices[-1]["a"] or choices[-1]["b"]).upper()


def _announces(text: str, choice: re.Match[str]) -> bool:
    """Whether a choice is said to be the answer, and not only mentioned."""
    if choice["says"] or (choice["word"].lower() == "answer" and not choice["which"]):
        return True
    return SAID_RIGHT.match(text, choice.end()) is not None


def _is_rejected(text: str, choice: re.Match[str]) -> bool:
    """Whether the words around a choice say that it is not the answer."""
    if SAID_WRONG.match(text, choice.end()):
        return True
    if not _announces(text, choice):
        sentence = SENTENCE_END.split(text[choice.end() : choice.end() + LONGEST_CLAUSE].lstrip(".)*$} "))[0]
        if CALLED_WRONG.search(SINCE.split(sentence)[0]):
            return True
    before = CLAUSE_END.split(text[max(0, choice.start() - LONGEST_CLAUSE) : choice.start()])[-1]
    return DOUBT.search(SO.split(before)[-1]) is not None
