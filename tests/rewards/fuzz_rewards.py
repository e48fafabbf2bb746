r"""Answers and gold answers that hypothesis makes, for as long as one likes, against what must hold for any text.

    python tests/rewards/fuzz_rewards.py SECONDS    (make fuzz-rewards: an hour)

Every call must end within its limit, give one of the known rewards, and the same again from another process; a gold
answer that can be read is right word for word. What does not hold is printed, smallest first; it goes into
`fuzzed_answers.jsonl`, with the verdict that is right, where the tests try it from then on.
"""

import sys
import time

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tokenshift.rewards.pool import VerificationPool
from tokenshift.rewards.verdicts import Verdict

LIMIT = 5.0  # CPU seconds
PIECES = st.sampled_from(
    [
        *(r"\frac{", r"\sqrt{", r"\boxed{", r"\text{", "^{", "_{", "}", "(", ")", "[", "]", r"\{", r"\}"),
        *(r"\left(", r"\right)", "|", "!", "!!", "+", "-", r"\cdot", "/", "^", "_", ",", ";", ":", "=", "<"),
        *(">", r"\le", r"\ne", r"\pm", r"\cup", r"\in", r"\sin", r"\log", r"\pi", "e", "i", "x", "y", "n"),
        *("0", "1", "2", "3", "9", "10", "12", "1.5", "0.1", "100", "1000", r"\infty", r"\sum_{k=1}^{9}"),
        *(r"\int_0^1", "dx", r"\lim_{x\to0}", r"\binom{", r"\%", "%", "$", r"\$", r"\circ", "cm", "km/h"),
        *("and", "or", r"\begin{pmatrix}", r"\end{pmatrix}", "&", "\\\\", r"\dots", r"\mathbb{R}"),
        *(r"\emptyset", "A", "B", "(A)", "####", "<think>", "</think>", "answer", "final", "is", "not"),
    ]
)
ANSWERS = st.one_of(
    st.lists(PIECES, max_size=24).map(" ".join), st.lists(PIECES, max_size=24).map("".join), st.text(max_size=40)
)
COMPLETIONS = st.one_of(
    ANSWERS.map(lambda text: f"So it is $\\boxed{{{text}}}$."), ANSWERS, ANSWERS.map("The answer is ${}$".format)
)


def main(seconds: float) -> int:
    """Fuzz for so many seconds; the exit status says whether all held."""
    pool, other = (VerificationPool(workers=1, limit=LIMIT) for _ in range(2))
    end, calls, killed = time.monotonic() + seconds, 0, 0

    @settings(
        max_examples=200,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate, Phase.shrink],
    )
    @given(gold=ANSWERS, completion=COMPLETIONS)
    def holds(gold: str, completion: str) -> None:
        nonlocal calls, killed
        calls += 1
        pairs = [(gold, completion), (gold, f"\\boxed{{{gold}}}")]
        start = time.process_time()
        verdict, itself = pool.verdicts(pairs)
        assert time.process_time() - start < LIMIT, "the caller computes"
        assert Verdict.UNREACHED not in (verdict, itself)
        if Verdict.KILLED in (verdict, itself):
            killed += 1
            print(f"reached the limit: {gold!r} and {completion!r}", flush=True)
        assert itself is not Verdict.WRONG, f"gold {gold!r} is not right word for word"
        assert (verdict is Verdict.NO_GOLD) == (itself is Verdict.NO_GOLD)
        if calls % 10 == 0:
            assert other.verdicts(pairs[:1]) == [verdict], "another process says something else"

    failed = 0
    while time.monotonic() < end:
        try:
            holds()
        except Exception as error:  # an assertion, or a group of several
            failed += 1
            print(f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ()), sep="\n  ", flush=True)
    pool.close()
    other.close()
    print(f"{calls} calls, {killed} verifications reached the limit of {LIMIT:g} CPU seconds, {failed} failures")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
