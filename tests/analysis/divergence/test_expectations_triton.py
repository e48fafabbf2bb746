"""The triton kernel against the reference: on CPU by triton's interpreter, and on CUDA at a real vocabulary's size."""

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from tokenshift.analysis.divergence.expectations import EXPECTATIONS, row_sums_torch
from tokenshift.analysis.divergence.from_logits import entropy, js_divergence, kl_divergence

pytest.importorskip("triton", reason="triton is not installed")

BLOCK = 64
INF, NAN = float("inf"), float("nan")

# triton reads TRITON_INTERPRET when it is first imported, and other tests may have imported it: a process of its own
INTERPRET = """
import sys
from dataclasses import asdict
import torch
from tokenshift.analysis.divergence.expectations_triton import row_sums_triton

cases = torch.load(sys.argv[1])
torch.save(
    {name: asdict(row_sums_triton(base, rl, frozenset(wanted), block=int(sys.argv[3])))
     for name, (base, rl, wanted) in cases.items()},
    sys.argv[2],
)
"""

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from tokenshift.analysis.divergence.expectations_triton import LOGITS_PER_PROGRAM, WARPS, _row_sums_kernel

flags = ("FORWARD_KL", "REVERSE_KL", "JS")
every = dict.fromkeys(flags, True)
ones = dict.fromkeys(("rows", "size", "base_stride", "rl_stride"), 1)  # triton makes constants of arguments that are 1
for constants in (every, dict.fromkeys(flags, False), every | ones):
    constants = constants | {"BLOCK": LOGITS_PER_PROGRAM}
    signature = {name: "constexpr" if name in constants else "*fp32" if name.endswith("_ptr") else "i32"
                 for name in _row_sums_kernel.arg_names}
    source = ASTSource(fn=_row_sums_kernel, signature=signature, constexprs=constants)
    triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": WARPS})
"""

Case = tuple[torch.Tensor, torch.Tensor, list[str]]


def _cases() -> dict[str, Case]:
    generator = torch.Generator().manual_seed(0)

    def normal(rows: int, size: int, scale: float = 3.0) -> torch.Tensor:
        return scale * torch.randn(rows, size, generator=generator)

    def pair(rows: int, size: int, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
        base = normal(rows, size, scale)
        return base, base + normal(rows, size, 0.3)

    every = sorted(EXPECTATIONS)
    cases: dict[str, Case] = {f"random {size}": (*pair(2, size), every) for size in (2, 63, 64, 65, 1000)}
    cases["unrelated"] = (normal(2, 300), normal(2, 300), every)
    cases["one token"] = (normal(3, 1), normal(3, 1), every)
    cases["peaked"] = (*pair(2, 400, 30.0), every)
    cases["flat"] = (torch.zeros(1, 1000), torch.full((1, 1000), 7.0), every)
    cases["same"] = (*[normal(1, 1000)] * 2, every)
    cases["far from zero"] = (normal(2, 200) + 1000.0, normal(2, 200) - 1000.0, every)
    rising = torch.linspace(-300.0, 0.0, 600).unsqueeze(0)  # the largest logit changes in every block
    cases["rising and falling"] = (rising, rising.flip(-1), every)
    cases["rising together"] = (rising, rising + normal(1, 600, 1.0), every)
    hot = torch.full((2, 200), -50.0)
    hot[0, 3], hot[1, 150] = 50.0, 50.0
    cases["nearly one-hot"] = (hot, hot.flip(0), every)
    one_hot = torch.full((2, 200), -INF)
    one_hot[0, 3], one_hot[1, 150] = 0.0, 0.0
    cases["one-hot"] = (one_hot, one_hot.flip(0), every)
    cases["one-hot alike"] = (one_hot, one_hot.clone(), every)
    holes = pair(6, 300)
    for row, (start, end) in enumerate([(0, 130), (170, 300), (64, 128), (0, 1), (299, 300), (20, 90)]):
        holes[0][row, start:end] = -INF
    cases["holes of base"] = (holes[0].clone(), holes[1].clone(), every)
    cases["holes of rl"] = (holes[1].clone(), holes[0].clone(), every)
    cases["holes of both"] = (holes[0].clone(), holes[1].masked_fill(holes[0] == -INF, -INF), every)
    masked = holes[0].masked_fill(holes[0] == -INF, torch.finfo(torch.float32).min)
    cases["lowest finite logits"] = (masked, masked + normal(6, 300, 0.1), every)
    wide = (normal(9, 200), normal(9, 200))
    cases["strided"] = (wide[0][::3, 20:150], wide[1][4:7, :130], every)
    cases["transposed"] = (normal(130, 3).T, normal(130, 3).T, every)
    cases["16 bits"] = (normal(3, 130).half(), normal(3, 130).half(), every)
    cases["no rows"] = (normal(0, 130), normal(0, 130), every)
    for name in [*every, "nothing known"]:
        cases[f"only {name}"] = (*pair(1, 130), [name])
    for where in (0, 100, 199):
        broken = normal(2, 200)
        broken[0, where] = NAN
        broken[0, 180] = 500.0  # scales sums so far by 0, which must not lose NaN
        cases[f"NaN at {where} in base"] = (broken, 50 * normal(2, 200), every)
        cases[f"NaN at {where} in rl"] = (50 * normal(2, 200), broken, every)
    nothing = normal(2, 200)
    nothing[0] = -INF
    cases["only -inf"] = (nothing, normal(2, 200), every)
    infinite = normal(2, 200)
    infinite[0, 100] = INF
    cases["+inf"] = (infinite, normal(2, 200), every)
    return cases


CASES = _cases()


def _run(code: str, *args: object, interpret: bool) -> None:
    env = os.environ | {"TRITON_INTERPRET": str(int(interpret)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """The results of the kernel for each case."""
    folder = tmp_path_factory.mktemp("triton")
    torch.save(CASES, folder / "cases.pt")
    _run(INTERPRET, folder / "cases.pt", folder / "results.pt", BLOCK, interpret=True)
    return torch.load(folder / "results.pt")


def _reference(base: torch.Tensor, rl: torch.Tensor) -> dict[str, torch.Tensor]:
    base, rl = base.double(), rl.double()
    return {
        "js": js_divergence(base, rl),
        "forward_kl": kl_divergence(base, rl),
        "reverse_kl": kl_divergence(rl, base),
        "entropy_base": entropy(base),
        "entropy_rl": entropy(rl),
    }


@pytest.mark.parametrize("name", CASES)
def test_kernel_is_the_reference(name: str, interpreted: dict[str, dict]) -> None:
    base, rl, wanted = CASES[name]
    found = interpreted[name]
    for model, logits in (("base", base), ("rl", rl)):
        highest, log_z = found[f"highest_{model}"], found[f"log_z_{model}"]
        assert highest.dtype == log_z.dtype == torch.float32
        expected = logits.double().amax(-1)
        log_sum = (logits.double() - expected.unsqueeze(-1)).exp().sum(-1).log()
        assert torch.equal(highest.nan_to_num(0), expected.float().masked_fill(log_sum.isnan(), 0.0))
        torch.testing.assert_close(log_z.double(), log_sum, rtol=1e-5, atol=1e-6, equal_nan=True)
    reference = _reference(base, rl)
    assert set(found["means"]) == EXPECTATIONS & set(wanted)
    for mean, values in found["means"].items():
        assert values.dtype == torch.float32
        assert not (values < 0).any()
        rtol, atol = (0.0, 1e-5) if mean == "js" else (1e-4, 1e-5)
        torch.testing.assert_close(
            values.double(),
            reference[mean],
            rtol=rtol,
            atol=atol,
            equal_nan=True,
            msg=lambda m, mean=mean: f"{mean}: {m}",
        )


def test_kernel_is_row_sums_torch(interpreted: dict[str, dict]) -> None:
    base, rl, wanted = CASES["random 1000"]
    expected = asdict(row_sums_torch(base, rl, frozenset(wanted), overwrite=False))
    torch.testing.assert_close(interpreted["random 1000"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((2, 0), (2, 0)), ((3,), (3,))])
def test_shapes_are_checked(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    from tokenshift.analysis.divergence.expectations_triton import row_sums_triton

    with pytest.raises(ValueError, match="must be"):
        row_sums_triton(torch.zeros(shapes[0]), torch.zeros(shapes[1]), frozenset())


def test_kernel_compiles_without_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter runs code that the compiler refuses."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    _run(COMPILE, interpret=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="triton's interpreter is on")
@pytest.mark.parametrize("size", [151936, 151935])
def test_kernel_on_cuda(size: int) -> None:
    from tokenshift.analysis.divergence.expectations_triton import row_sums_triton

    generator = torch.Generator("cuda").manual_seed(0)
    base = 3 * torch.randn(64, size, device="cuda", generator=generator)
    rl = base + 0.3 * torch.randn(64, size, device="cuda", generator=generator)
    base[5, 1000:5000] = rl[5, 1000:5000] = -1e4
    base[6, 1000:5000] = -INF
    base[7, size - 1] = NAN
    found = asdict(row_sums_triton(base, rl, EXPECTATIONS))
    reference = _reference(base, rl)
    sound = [row for row in range(64) if row not in (6, 7)]  # row_sums gives NaN for -inf
    expected = asdict(row_sums_torch(base[sound], rl[sound], EXPECTATIONS, overwrite=False))
    for mean, values in found.pop("means").items():
        rtol, atol = (0.0, 1e-5) if mean == "js" else (1e-4, 1e-5)
        torch.testing.assert_close(values[sound], expected["means"][mean], rtol=rtol, atol=atol)
        torch.testing.assert_close(values.double(), reference[mean], rtol=rtol, atol=atol, equal_nan=True)
    for name, values in found.items():
        torch.testing.assert_close(values[sound], expected[name], rtol=1e-5, atol=1e-5)
