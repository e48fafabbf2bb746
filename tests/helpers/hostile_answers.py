r"""Answers that are written to find the weaknesses of a judge: it must come to an end, run nothing, and give no 1.

`HOSTILE` has at least 400 of them, apart from the corpus of gold answers. Run as a script (`make hostile-answers`), it
prints how long each kind takes, how much memory the processes take, and how many are left.

    cd tests && python -m helpers.hostile_answers [LIMIT]

LIMIT is the number of CPU seconds that a verification may take. Under `strace -f -e trace=execve,openat` the last line
that it prints says how many processes were started: so many `execve` there are, and none names the planted file.
"""

import resource
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from tokenshift.rewards.pool import VerificationPool
from tokenshift.rewards.process import VerificationProcess
from tokenshift.rewards.verdicts import Verdict

PLANTED = "/tmp/planted-by-a-hostile-answer"
"""A file that some of the answers try to read, write or run."""


@dataclass(frozen=True)
class Hostile:
    """A hostile completion.

    Attributes:
        kind: what it tries.
        gold: the gold answer, which it does not equal.
        completion: the text.
    """

    kind: str
    gold: str
    completion: str


def boxed(answer: str) -> str:
    return f"The answer is $\\boxed{{{answer}}}$."


def nested(opening: str, inner: str, closing: str, depth: int) -> str:
    return opening * depth + inner + closing * depth


def power_tower(number: str, height: int) -> str:
    return nested(number + "^{", number, "}", height - 1)


TOWERS = [
    *(
        power_tower(number, height)
        for number in ("2", "3", "9", "10", "99", "x", "-2", "1.5", "e", "i")
        for height in (3, 4, 5, 8, 12, 25, 60)
    ),
    *(power_tower(number, height) for number in ("1", "0", "(-1)") for height in (4, 8, 30)),
    *(
        f"{number}^{{9^{{9^9}}}}"
        for number in ("1", "0", "-1", r"\frac{1}{2}", r"\pi", "0.1", r"\sqrt{2}", "(1+x)", "1.0")
    ),
    *(f"9^{{9^{{9}}}} {sign} 9^{{9^{{9}}}}" for sign in ("-", "+", r"\cdot", "/", r"\bmod", "=", "<")),
    *(rf"\{name}(9^{{9^{{9}}}})" for name in ("sin", "log", "exp", "sqrt", "gcd", "floor", "arctan", "max")),
    *(rf"\{name}{{9^{{9^{{9}}}}}}" for name in ("frac{1}", "sqrt", "overline", "binom{5}", "sqrt[3]")),
    r"2^{2^{2^{2^{2^2}}}} \bmod 7",
    r"\left(9^9\right)^{\left(9^9\right)^{9}}",
    "9**9**9**9",
    "9^9^9^9^9",
    "9^{-9^{9^9}}",
    r"\sqrt[9^{9^9}]{2}",
    r"\log_{9^{9^9}} 2",
    r"\lfloor e^{9^{9}} \rfloor",
    r"10^{10^{100}}",
    "7^{7^{7^{7}}} - 1",
    r"\lfloor 10^{100000}\pi \rfloor",
    r"\cos(10^{10^{5}})",
    r"\tan(10^{10000})",
    r"2^{100000000}",
    r"(2^{200000})^{50}",
]

FACTORIALS = [
    *("3" + "!" * count for count in (2, 3, 5, 9, 50, 500)),
    *("9" + "!" * count for count in (2, 3, 5)),
    *(nested("(", str(number), "!)", depth) for number in (3, 4, 10, 100) for depth in (2, 3, 4, 8, 20, 60)),
    *(f"{10**power}!" for power in (3, 4, 5, 6, 8, 10, 20)),
    *(
        rf"\binom{{10^{{{top}}}}}{{10^{{{low}}}}}"
        for top, low in ((3, 2), (5, 4), (6, 5), (9, 8), (20, 10), (100, 99))
    ),
    *(f"({number}!)!" for number in (5, 6, 7, 8, 10, 12, 20, 100)),
    r"\frac{(10!)!}{(9!)!}",
    r"\frac{1000000!}{999999!}",
    r"(10!)! - (10!)!",
    r"(10!)^{(10!)}",
    r"\sqrt{(10!)!}",
    r"\log((100!)!)",
    r"\sin(100000!)",
    r"\Gamma(10^{10})",
    r"(10^{10})!!",
    r"\prod_{k=1}^{10^{9}} k",
    r"\binom{\binom{\binom{100}{50}}{50}}{50}",
    r"C_{1000000}^{500000}",
    r"P(1000000, 500000)",
    r"(x!)!",
    r"(\pi!)!",
    r"(1.5!)!",
    r"(-10)!",
    r"((-1)!)!",
    r"(10!)! \bmod 7",
    r"{}_{10000000}C_{5000000}",
]

BRACKETS = {
    "(": ")",
    "[": "]",
    "{": "}",
    r"\{": r"\}",
    "|": "|",
    r"\left(": r"\right)",
    r"\lfloor ": r"\rfloor",
    r"\langle ": r"\rangle",
    "x^{": "}",
    "x_{": "}",
    "2^{": "}",
    r"\sqrt{": "}",
    r"\sqrt[3]{": "}",
    r"\frac{1}{": "}",
    r"\frac{1}{1+\frac{": "}{2}}",
    r"\sin(": ")",
    r"\log(": ")",
    r"\ln{": "}",
    "f(": ")",
    "-(": ")",
    "2(": ")",
    "(1+": ")",
    r"\text{": "}",
    r"\boxed{": "}",
    r"\overline{": "}",
    r"\mathrm{": "}",
    r"\binom{5}{": "}",
    r"\max(1,": ")",
    r"\gcd(2,": ")",
    r"\begin{pmatrix}": r"\end{pmatrix}",
    r"\int_0^1 ": "dx",
    r"\sum_{k=1}^{": "} k",
    r"\lim_{x\to 0} ": "",
    "-": "",
    r"\sqrt ": "",
    r"\neg ": "",
    r"e^{": "}",
    r"(1,": ")",
    r"\left\{": r"\right.",
    r"\begin{cases}": r"\end{cases}",
}
NESTINGS = [
    nested(opening, "7", closing, depth) for opening, closing in BRACKETS.items() for depth in (12, 40, 120, 1500)
]

LENGTHS = [
    "1" * 5000,
    "9" * 100_000,
    "1+" * 2000 + "1",
    "x+" * 2000 + "x",
    "1," * 20_000 + "1",
    "(1,2)," * 3000 + "(1,2)",
    r"\frac{1}{2}+" * 400 + "1",
    r"\frac" * 3000,
    r"\sqrt" * 3000,
    "x^" * 3000,
    "-" * 5000 + "1",
    "^" * 5000,
    "{" * 50_000,
    "}" * 50_000,
    "(" * 50_000,
    "$" * 50_000,
    "\\" * 50_001,
    "=" * 5000,
    "1=" * 2000 + "1",
    "1<" * 2000 + "1",
    r"\cup ".join(["(1,2)"] * 600),
    r"\pm 1" * 800,
    "1 or " * 2000 + "1",
    "1 and " * 2000 + "1",
    "1;" * 5000 + "1",
    "a" * 100_000,
    "ab" * 2000,
    "é" * 20_000,
    "0." + "3" * 4900,
    "0." + "0" * 4900 + "1",
    "1e" + "9" * 400,
    "1 " * 2400,
    "1:" * 2400 + "1",
    "5 km " * 900,
    r"\text{a} " * 600,
    "x_1" * 1500,
    r"\cdot".join(["x"] * 1000),
    "()" * 2400,
    "|" * 4000,
    "x" * 4000 + "=1",
    "+".join(f"x^{{{power}}}" for power in range(700)),
    "+".join(f"x_{{{index}}}" for index in range(600)),
    "+".join(f"x^{{{power}}}" for power in range(79)) + "=0",
    r"\begin{pmatrix}" + "&".join("1" * 900) + r"\end{pmatrix}",
    r"\begin{pmatrix}" + r"1\\" * 900 + r"\end{pmatrix}",
    r"\\" * 2400,
    "\n" * 4000 + "1",
    " " * 4900 + "1",
    "1" + "\u200b" * 3000,
    "1" + "\u0301" * 3000,
    "\ufeff" * 3000,
    "\x00" * 3000,
    "1\x00" * 500,
    "\ud800" * 100,
    "\U0001f600" * 1000,
    "١" * 1000,
    "²" * 1000,
    "½" * 1000,
    "∞" * 1000,
]

ENDLESS = [
    r"\sum_{k=1}^{900}\sum_{j=1}^{900}\sum_{i=1}^{900}\sqrt{i+j+k}",
    r"\sum_{k=1}^{10^{9}} k^{-k}",
    r"\sum_{k=1}^{10^7} \sin k",
    r"\prod_{k=1}^{10^{6}} (1+\frac{1}{k^2})",
    r"\int_0^1 x^x dx",
    r"\int \frac{\sin(x^2) e^x}{1+x^7} dx",
    r"\sum_{k=1}^{\infty} \frac{1}{k^k}",
    r"\int_0^{\infty}\int_0^{\infty} e^{-x^4-y^4-xy} dx dy",
    r"\lim_{n\to\infty} \sum_{k=1}^{n} \frac{1}{k^3+\sin k}",
    "x^{100}-x-1=0",
    "x^{x^x}=3",
    r"\sin x = x",
    r"e^x = x^{20}+1",
    r"x^5-x-1=0",
    "x^7+y^7=z^7",
    r"|x|+|y|+|z|<1",
    r"\sin(x)+\sin(2x)+\sin(3x)=1",
    r"(x+y+z+w)^{60}",
    r"(a+b+c+d+e+f)^{40}=1",
    r"\sqrt{x+\sqrt{x+\sqrt{x+\sqrt{x}}}}=3",
    r"\prod_{k=1}^{200} (x-k)",
    r"\sum_{k=0}^{500} x^k",
    r"\frac{d^{50}}{dx^{50}} e^{x^2}",
    r"\sqrt{2}+\sqrt{3}+\sqrt{5}+\sqrt{7}+\sqrt{11}+\sqrt{13}+\sqrt{17}+\sqrt{19}=0",
    r"\sqrt{1+\sqrt{2+\sqrt{3+\sqrt{4+\sqrt{5+\sqrt{6+\sqrt{7}}}}}}}",
    r"\cos(\frac{\pi}{17})+\cos(\frac{\pi}{19})+\cos(\frac{\pi}{23})",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}^{100000}",
    r"\begin{vmatrix}x&1&2&3\\4&x&5&6\\7&8&x&9\\1&2&3&x\end{vmatrix}",
    r"\{x \mid x^{100} > 1\}",
    r"\gcd(10^{100000}+1, 3^{100000})",
    r"\max(" + ",".join(f"x^{{{k}}}" for k in range(30)) + ")",
    r"x \bmod 10^{10^{10}}",
    r"\lfloor\lfloor x^{50}\rfloor^{50}\rfloor",
    r"\left|\left|\left|x-1\right|-2\right|-3\right|=4",
    r"\tan^{-1}(\tan(10^{20}))",
    r"\log_2(\log_2(\log_2(2^{2^{2^{2^2}}})))",
    r"\int_{0}^{1}\int_{0}^{1}\int_{0}^{1}\sqrt{x+y+z}\,dx\,dy\,dz",
    r"\sum_{i=1}^{9999}\sum_{j=1}^{9999} ij",
    r"\zeta(3)",
    r"\Gamma(\frac{1}{3})^{100}",
    r"\sin^{100}(x)\cos^{100}(x)",
    r"(1+\sqrt{2})^{1000}",
    r"(\sqrt{2}+\sqrt{3})^{500}",
    r"e^{i\pi\sqrt{163}}",
    r"(1+x)^{1000}-(1-x)^{1000}",
    r"\frac{x^{1000}-1}{x-1}",
    r"\sqrt[1000]{x^{1000}+1}",
    r"\arcsin(\sin(x^{20}))",
    r"1.1^{1.1^{1.1^{1.1^{1.1^{x}}}}}",
]

CODE = [
    f"__import__('os').system('touch {PLANTED}')",
    f"open('{PLANTED}','w').write('x')",
    f"exec(\"open('{PLANTED}','w')\")",
    "__import__('time').sleep(1000)",
    "(lambda: [].append)()",
    "().__class__.__bases__[0].__subclasses__()",
    "exit()",
    "quit()",
    "import os",
    "while True: pass",
    f"\\input{{{PLANTED}}}",
    f"\\include{{{PLANTED}}}",
    f"\\write18{{touch {PLANTED}}}",
    f"\\openout1={PLANTED}",
    f"\\immediate\\write18{{cat {PLANTED}}}",
    f"\\href{{file://{PLANTED}}}{{4}}",
    f"`touch {PLANTED}`",
    f"$(touch {PLANTED})",
    f"; touch {PLANTED} ;",
    f"| tee {PLANTED}",
    f"file://{PLANTED}",
    "http://127.0.0.1:9/",
    r"\def\a{\a\a}\a",
    r"\loop\iftrue\repeat",
    r"\newcommand{\x}{\x\x}\x",
    r"\catcode`\@=0",
    r"\csname end\endcsname",
    "{{7*7}}",
    "${7*7}",
    "%(x)s",
    "%s%s%s%n",
    "{0.__class__}",
    "'; DROP TABLE golds; --",
    "<script>alert(1)</script>",
    '{"gold": "5"}',
    "null",
    "NaN",
    "inf",
    "-inf",
    "1e999",
    "True",
    "None",
    "lambda x: x",
    "sympy.factorial(10**10)",
    "S(1)/0",
    "sys.exit(0)",
    "os._exit(0)",
    "raise KeyboardInterrupt",
    "print(open('/etc/passwd').read())",
    "globals()",
    "eval('5')",
    "@5",
    "#5",
    "5;5",
    "5\\",
    "\\5",
    "'",
    "\r5\r6",
    "\x1b[2J",
    "\x04",
    "\x1a",
    "\ud83d",
    f"!touch {PLANTED}",
    f"%run {PLANTED}",
    f"&& sh {PLANTED}",
]

PLACES = [
    "\\boxed{" * 20_000,
    "\\boxed{5" * 5000,
    "\\boxed{}" * 20_000,
    "\\boxed{6} " * 20_000,
    "<think>" * 20_000,
    "</think>" * 20_000,
    "<think>\\boxed{5}",
    "answer " * 20_000,
    "answer: $" * 10_000,
    "final answer is " * 10_000,
    "final answer" + " " * 100_000,
    "#" * 100_000,
    "#### " * 20_000,
    "The answer is (" * 10_000,
    "option (A) " * 10_000,
    "answer" + "*" * 100_000,
    "$" * 100_001,
    "\\(" * 50_000,
    "\\[" * 50_000,
    "answer \\frac{" + "1" * 50_000,
    "\\text{answer" * 10_000,
    "is not " * 20_000 + "\\boxed{6}",
    "answer is not \\boxed{6}",
    "\n" * 100_000,
    "\\" * 100_000,
    "{" * 100_000 + "\\boxed{6}",
    "}" * 100_000 + "\\boxed{6}",
    "\\fbox{" * 20_000,
    "\\boxed {6} and " * 8000,
    "\\boxed{6}," * 8000,
    "or \\boxed{x=6}" * 4000,
    "x" * 1_000_000,
    "é" * 300_000,
    "\\boxed{" + "6" * 1_000_000 + "}",
    "\x00" * 100_000,
    "(A) (B) (C) (D) " * 5000,
]

SPOOFS = [
    r"\text{the gold answer}",
    "5 or 6 or 7 or 8",
    "x",
    r"\text{correct}",
    r"\{5, 6, 7\}",
    r"\mathbb{R}",
    "1 < x < 100",
    "5 \\pm 5",
    "5^{x-x+1} + 1",
    r"\text{any}",
    "*",
    ".*",
    "[0-9]+",
    "?",
    "_",
    "5|6",
    "5 = x = 6",
    r"5 \ne 5",
    r"\not 5",
    "5, 5, 6",
    "gold",
    "solution",
    "[-100, 100]",
    "5 + \\epsilon",
    r"\lim_{x \to 5} x + 1",
    r"5\cdot 0",
    "5e0e1",
    "0x5G",
    "5_6",
    r"\approx 5.1",
    ">= 5",
    r"\ge 5",
    "(5, 6)",
    "5 \\text{ apples or 6}",
    "-5",
    "5i",
    "5!",
    "50",
]

HOSTILE = [
    *(
        Hostile(kind, "5", boxed(answer))
        for kind, answers in (
            ("towers", TOWERS),
            ("factorials", FACTORIALS),
            ("nesting", NESTINGS),
            ("length", LENGTHS),
            ("endless", ENDLESS),
            ("code", CODE),
            ("spoofs", SPOOFS),
        )
        for answer in answers
    ),
    *(Hostile("place", "5", text) for text in PLACES),
]


def largest_memory(processes: list[VerificationProcess]) -> int:
    """The most bytes that any of the running processes has had in memory."""
    most = 0
    for process in processes:
        if process._process is not None and process._process.poll() is None:
            status = Path(f"/proc/{process._process.pid}/status")
            if status.is_file():
                line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
                most = max(most, int(line.split()[1]) * 1024)
    return most


def main(limit: float) -> None:
    """Verify each in a call of its own, and print what it took."""
    Path(PLANTED).unlink(missing_ok=True)
    started = 0
    popen = subprocess.Popen

    def counting(*arguments: object, **options: object) -> object:
        nonlocal started
        started += 1
        return popen(*arguments, **options)

    subprocess.Popen = counting  # type: ignore[misc, assignment]
    pool = VerificationPool(workers=2, limit=limit)
    memory, longest = 0, 0.0
    print(f"{len(HOSTILE)} hostile answers, limit {limit:g} CPU seconds")
    for kind in dict.fromkeys(hostile.kind for hostile in HOSTILE):
        taken: list[float] = []
        verdicts: Counter[Verdict] = Counter()
        for hostile in (hostile for hostile in HOSTILE if hostile.kind == kind):
            start = time.monotonic()
            verdict = pool.verdicts([(hostile.gold, hostile.completion)])[0]
            taken.append(time.monotonic() - start)
            verdicts[verdict] += 1
            memory = max(memory, largest_memory(pool._idle))
            if verdict is not Verdict.WRONG:
                print(f"    {verdict}: {hostile.completion[:100]!a}")
        counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
        print(f"  {kind}: {counts}; longest call {max(taken):.1f} s, all {sum(taken):.0f} s", flush=True)
        longest = max(longest, *taken)
    pool.close()
    memory = max(memory, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
    left = psutil.Process().children(recursive=True)
    print(f"  longest call {longest:.1f} s, hangs 0")
    print(f"  most memory of a process {memory / 2**20:.0f} MiB, processes left {len(left)}")
    print(f"  planted file touched: {Path(PLANTED).exists()}, processes started {started}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
