"""The fast path against the float64 reference."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.exact_statistics import oracle
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tokenshift.analysis.divergence.from_logits import js_divergence, kl_divergence, top_p_support
from tokenshift.analysis.divergence.lm_head import LMHead
from tokenshift.analysis.divergence.token_statistics import STATISTICS, token_statistics
from tokenshift.analysis.divergence.top_k import top_k
from tokenshift.analysis.divergence.top_p import DEPTH, NextTokens, set_of_any_size, truncated_divergences


def make(
    n: int,
    hidden: int,
    vocab: int,
    seed: int,
    *,
    shift: float = 0.3,
    dtype: torch.dtype = torch.float32,
    size: float = 2,
) -> tuple[torch.Tensor, torch.Tensor, LMHead, LMHead, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(n, hidden, generator=g)
    rl = base + shift * torch.randn(n, hidden, generator=g) * torch.rand(n, 1, generator=g) ** 4
    weight = size * torch.randn(vocab, hidden, generator=g) / hidden**0.5
    head_base = LMHead(weight.to(dtype))
    head_rl = LMHead((weight + 0.01 * torch.randn(vocab, hidden, generator=g)).to(dtype))
    return base.to(dtype), rl.to(dtype), head_base, head_rl, torch.randint(vocab, (n,), generator=g)


def float64_logits(hidden: torch.Tensor, head: LMHead, temperature: float) -> torch.Tensor:
    logits = hidden.double() @ head.weight.double().t()
    if head.bias is not None:
        logits = logits + head.bias.double()
    logits = logits * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return logits / temperature


def next_tokens(logits: torch.Tensor) -> NextTokens:
    return NextTokens(logits, top_k(logits, DEPTH), logits.double().logsumexp(-1))


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, value in found.items():
        want = expected[name]
        if not value.is_floating_point():
            assert torch.equal(value, want), name
            continue
        assert value.dtype == torch.float32
        infinite = want.isinf()
        assert torch.equal(value.isinf(), infinite), name
        error = (value.double() - want.double())[~infinite].abs()
        allowed = 1e-5 if name.startswith("js") else 1e-4 * want[~infinite].abs() + 1e-5
        assert (error <= allowed).all(), f"{name}: {error.max().item()}"


def are_apart(logits: torch.Tensor, ids: torch.Tensor) -> bool:
    """Whether float32 ranks tokens as float64 does: no logit lies close to the token's, nor do the largest ones."""
    distance = (logits - logits.gather(-1, ids.unsqueeze(-1))).abs().scatter(-1, ids.unsqueeze(-1), math.inf)
    largest = logits.topk(min(12, logits.shape[-1]), dim=-1).values
    gaps = torch.cat([distance.flatten(), largest.diff(dim=-1).abs().flatten()])
    return float(gaps.min()) > 1e-5


@settings(deadline=None, max_examples=60)
@given(
    n=st.sampled_from([1, 7, 40]),
    vocab=st.sampled_from([1, 2, 50, 700]),
    seed=st.integers(0, 10_000),
    temperature=st.sampled_from([0.6, 1.0, 2.0]),
    top_p=st.sampled_from([1e-6, 0.3, 0.7, 0.95, 1.0]),
    kind=st.sampled_from(["plain", "bias", "scale", "softcap", "sharp"]),
    budget=st.sampled_from([1, 20_000, 2**29]),
)
def test_every_output_against_float64(
    n: int, vocab: int, seed: int, temperature: float, top_p: float, kind: str, budget: int
) -> None:
    base, rl, head_base, head_rl, ids = make(n, 16, vocab, seed, size=8 if kind == "sharp" else 2)
    if kind == "bias":
        bias = torch.randn(vocab, generator=torch.Generator().manual_seed(seed))
        head_base, head_rl = replace(head_base, bias=bias), replace(head_rl, bias=2 * bias)
    if kind == "scale":
        head_base, head_rl = replace(head_base, scale=0.25), replace(head_rl, scale=0.5)
    if kind == "softcap":
        head_base, head_rl = replace(head_base, softcap=3.0), replace(head_rl, softcap=3.0)
    p, q = float64_logits(base, head_base, temperature), float64_logits(rl, head_rl, temperature)
    assume(are_apart(p, ids) and are_apart(q, ids) and are_apart(p, q.argmax(-1)))
    found = token_statistics(
        base, rl, head_base, head_rl, ids,
        outputs=STATISTICS, temperature=temperature, top_p=top_p, memory_budget=budget,
    )  # fmt: skip
    assert list(found) == list(STATISTICS)
    assert_close(found, oracle(p, q, ids, top_p))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_inputs_are_accumulated_in_float32(dtype: torch.dtype) -> None:
    base, rl, head_base, head_rl, ids = make(50, 64, 500, 1, dtype=dtype)
    found = token_statistics(base, rl, head_base, head_rl, ids, outputs=STATISTICS, top_p=0.7)
    p, q = float64_logits(base, head_base, 1.0), float64_logits(rl, head_rl, 1.0)
    assert_close(found, oracle(p, q, ids, 0.7))


@pytest.mark.parametrize("top_p", [1e-6, 0.2, 0.5, 0.7, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["peaked", "flat", "ties", "one-hot", "holes", "edge"])
def test_truncated_sets_are_the_references(top_p: float, kind: str) -> None:
    g = torch.Generator().manual_seed(0)
    p, q = 3 * torch.randn(64, 400, generator=g), 3 * torch.randn(64, 400, generator=g)
    q[:32] = p[:32] + 0.2 * q[:32]
    if kind == "flat":
        p, q = p / 100, q / 100
    if kind == "ties":
        p, q = p.round(), q.round()
    if kind == "one-hot":
        p = torch.full_like(p, -math.inf).scatter(1, torch.randint(400, (64, 1), generator=g), 0.0)
    if kind == "holes":
        p[:, 5:] = -math.inf
    if kind == "edge":  # masses that meet top_p exactly
        p[:] = -math.inf
        p[:, :10] = 0.0
    found, sure = truncated_divergences(next_tokens(p), next_tokens(q), top_p, strip=5)
    expected = (
        js_divergence(p.double(), q.double(), top_p=top_p),
        kl_divergence(p.double(), q.double(), top_p=top_p),
        kl_divergence(q.double(), p.double(), top_p=top_p),
    )
    for ours, want in zip(found, expected, strict=True):
        assert torch.equal(ours[sure].isinf(), want[sure].isinf())
        torch.testing.assert_close(ours[sure].double(), want[sure], rtol=1e-5, atol=1e-6)
    if kind in ("peaked", "flat") and top_p < 0.99:
        assert sure.float().mean() > 0.4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.7, 0.95, 0.999])
def test_wide_sets_hold_the_tokens_of_the_definition(top_p: float, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(int(1000 * top_p))
    sharpness = torch.tensor([0.1, 0.5, 1, 2, 3, 6, 12]).repeat(10).unsqueeze(-1)
    logits = (sharpness * torch.randn(70, 5000, generator=g)).to(dtype)
    logits[::9, 2000:] = -math.inf
    logits[5] = logits[5].round()  # ties at the edge
    logits[6, :] = -math.inf
    logits[6, 7:17] = 0.0  # masses that meet a top_p of 0.3 and 0.7 at a token
    found = set_of_any_size(logits, logits.double().logsumexp(-1), top_p)
    for row, expected in enumerate(top_p_support(torch.log_softmax(logits.double(), -1), top_p)):
        ids = found.ids[row][found.logp[row].isfinite()]
        if found.sure[row]:
            assert torch.equal(ids, expected.nonzero().squeeze(-1))
            torch.testing.assert_close(float(found.logp[row].exp().sum()), 1.0, rtol=0, atol=1e-12)
    lowest = 0.94 if dtype == torch.float64 else 0.2 if top_p == 0.999 else 0.75  # masses come close to 1 slowly
    assert found.sure.float().mean() > lowest


def test_sets_of_float32_are_sure_only_where_float64_agrees() -> None:
    """Rounding of float32 logits may move a token over the edge: then the row is called unsure."""
    g = torch.Generator().manual_seed(2)
    exact = 2 * torch.randn(400, 3000, generator=g, dtype=torch.float64)
    rounded = (exact + 2e-6 * torch.randn(exact.shape, generator=g)).float()  # as a product in float32 does
    found = set_of_any_size(rounded, rounded.double().logsumexp(-1), 0.7)
    expected = top_p_support(torch.log_softmax(exact, -1), 0.7)
    wrong = [
        row
        for row in range(len(exact))
        if not torch.equal(found.ids[row][found.logp[row].isfinite()], expected[row].nonzero().squeeze(-1))
    ]
    assert not found.sure[wrong].any()
    assert found.sure.float().mean() > 0.8


def test_chunks_and_exact_rows_do_not_change_what_is_found() -> None:
    base, rl, head_base, head_rl, ids = make(290, 32, 1000, 8, size=2.5)
    given = {"outputs": STATISTICS, "top_p": 0.7}
    whole = token_statistics(base, rl, head_base, head_rl, ids, **given)
    for budget in (2**18, 2**21):
        found = token_statistics(base, rl, head_base, head_rl, ids, memory_budget=budget, **given)
        for name, value in found.items():
            torch.testing.assert_close(value, whole[name], rtol=2e-5, atol=4e-6, msg=f"{name} at {budget}")


def test_sets_are_those_of_exact_arithmetic() -> None:
    base, rl, head_base, head_rl, ids = make(300, 256, 3000, 5, size=1.5, dtype=torch.float16)
    found = token_statistics(base, rl, head_base, head_rl, ids, outputs=("js_top_p", "reverse_kl_top_p"), top_p=0.7)
    p, q = float64_logits(base, head_base, 1.0), float64_logits(rl, head_rl, 1.0)
    torch.testing.assert_close(found["js_top_p"].double(), js_divergence(p, q, top_p=0.7), rtol=1e-3, atol=2e-6)
    assert torch.equal(found["reverse_kl_top_p"].isinf(), kl_divergence(q, p, top_p=0.7).isinf())


def test_wide_sets() -> None:
    g = torch.Generator().manual_seed(0)
    p = 1.5 * torch.randn(100, 20_000, generator=g)
    q = p + 0.3 * torch.randn(100, 20_000, generator=g)
    expected = js_divergence(p.double(), q.double(), top_p=0.7)
    (js, forward, _), sure = truncated_divergences(next_tokens(p), next_tokens(q), 0.7, strip=7)
    assert sure.float().mean() > 0.3
    assert forward[sure].isinf().all(), "wide sets that moved differ at their edges"
    torch.testing.assert_close(js[sure].double(), expected[sure], rtol=1e-4, atol=1e-6)
    same, sure = truncated_divergences(next_tokens(p), next_tokens(p), 0.7, strip=7)
    assert float(same[:, sure].max()) < 1e-6


def test_only_what_is_asked_for_and_inputs_are_left_alone() -> None:
    base, rl, head_base, head_rl, ids = make(9, 8, 90, 0)
    before = base.clone(), rl.clone(), head_base.weight.clone()
    assert list(token_statistics(base, rl, head_base, head_rl, ids)) == ["js"]
    assert list(token_statistics(base, rl, head_base, head_rl, ids, outputs=["overlap_7", "logp_rl"])) == [
        "overlap_7",
        "logp_rl",
    ]
    assert token_statistics(base, rl, head_base, head_rl, ids, outputs=[]) == {}
    assert all(torch.equal(a, b) for a, b in zip(before, (base, rl, head_base.weight), strict=True))
    empty = token_statistics(base[:0], rl[:0], head_base, head_rl, ids[:0], outputs=STATISTICS)
    assert all(len(value) == 0 for value in empty.values())


def test_each_output_alone_equals_itself_among_all() -> None:
    base, rl, head_base, head_rl, ids = make(20, 8, 150, 3)
    together = token_statistics(base, rl, head_base, head_rl, ids, outputs=STATISTICS, top_p=0.7)
    for name in STATISTICS:
        alone = token_statistics(base, rl, head_base, head_rl, ids, outputs=[name], top_p=0.7)
        torch.testing.assert_close(alone[name], together[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_rl": torch.zeros(8, 8)}, r"hidden_rl has shape \(8, 8\)"),
        ({"hidden_base": torch.zeros(9, 7)}, r"hidden_base has shape \(9, 7\)"),
        ({"token_ids": torch.full((9,), 90)}, "token id 90 lies outside the vocabulary of 90 tokens"),
        ({"token_ids": torch.full((9,), -1)}, "token id -1 lies outside"),
        ({"hidden_base": torch.full((9, 8), math.nan)}, "NaN"),
        ({"hidden_base": torch.full((9, 8), math.nan), "outputs": ["top1_base"]}, "NaN"),
        ({"hidden_rl": torch.full((9, 8), math.inf), "outputs": ["js_top_p"], "top_p": 0.7}, "NaN"),
        ({"token_ids": torch.zeros(9)}, "token_ids must be integers, not torch.float32"),
        ({"head_rl": LMHead(torch.zeros(91, 8))}, "90 and 91 tokens"),
        ({"top_p": 0.0}, "top_p=0.0 must lie in"),
        ({"temperature": -1.0}, "temperature=-1.0 must be"),
        ({"outputs": ["jss"]}, "outputs names 'jss'; known are js"),
        ({"outputs": ["overlap_0"]}, "outputs names 'overlap_0'"),
    ],
)
def test_bad_input(change: dict, words: str) -> None:
    base, rl, head_base, head_rl, ids = make(9, 8, 90, 0)
    inputs = {"hidden_base": base, "hidden_rl": rl, "head_base": head_base, "head_rl": head_rl, "token_ids": ids}
    with pytest.raises(ValueError, match=words):
        token_statistics(**{**inputs, **change})


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_cuda(dtype: torch.dtype) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    base, rl, head_base, head_rl, ids = make(700, 64, 3000, 4, dtype=dtype)
    moved = [LMHead(head.weight.cuda()) for head in (head_base, head_rl)]
    found = token_statistics(base.cuda(), rl.cuda(), *moved, ids.cuda(), outputs=STATISTICS, top_p=0.7)
    p, q = float64_logits(base, head_base, 1.0), float64_logits(rl, head_rl, 1.0)
    exact = ("js", "forward_kl", "reverse_kl", "entropy_base", "logp_rl", "rank_rl", "overlap_10", "js_top_p")
    assert_close({name: found[name].cpu() for name in exact}, oracle(p, q, ids, 0.7))


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
def test_an_offset_of_all_logits_costs_no_digits(offset: float) -> None:
    g = torch.Generator().manual_seed(3)
    # multiples of 1/256, so that logits of about 10,000 are exact in float32 and only the division rounds
    hidden, other = (torch.randint(-16, 17, (40, 8), generator=g) / 16 for _ in range(2))
    weight = torch.randint(-32, 33, (300, 8), generator=g) / 16
    head = LMHead(weight, torch.full((300,), offset))
    ids = torch.randint(300, (40,), generator=g)
    temperature, top_p = 0.7, 0.6
    p, q = (float64_logits(states, LMHead(weight), temperature) for states in (hidden, other))
    found = token_statistics(hidden, other, head, head, ids, outputs=STATISTICS, temperature=temperature, top_p=top_p)
    expected = oracle(p, q, ids, top_p)
    for name in STATISTICS:
        if found[name].is_floating_point() and "kl_top_p" not in name:
            torch.testing.assert_close(found[name].double(), expected[name].double(), atol=2e-6, rtol=2e-6)
    logits = [states @ weight.t() + offset for states in (hidden, other)]  # float32
    for name, value in (
        ("js", js_divergence(*logits, temperature=temperature)),
        ("js_top_p", js_divergence(*logits, temperature=temperature, top_p=top_p)),
        ("forward_kl", kl_divergence(*logits, temperature=temperature)),
    ):
        torch.testing.assert_close(value.double(), expected[name].double(), atol=2e-6, rtol=2e-6)
