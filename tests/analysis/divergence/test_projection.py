"""The precision that CUDA multiplies float32 in: what is set is known by both names, and comes back."""

from collections.abc import Iterator

import pytest
import torch

from tokenshift.analysis.divergence.projection import multiplies_in_tf32, whole_float32


@pytest.fixture
def matmul() -> Iterator[object]:
    yield torch.backends.cuda.matmul
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.mark.parametrize(
    ("name", "rounded", "exact"), [("fp32_precision", "tf32", "ieee"), ("allow_tf32", True, False)]
)
def test_tf32_is_known_and_left_for_a_product_alone(matmul: object, name: str, rounded: object, exact: object) -> None:
    if not hasattr(matmul, name):
        pytest.skip("torch < 2.9 has no fp32_precision")
    setattr(matmul, name, exact)
    assert not multiplies_in_tf32()
    setattr(matmul, name, rounded)
    assert multiplies_in_tf32()
    with whole_float32():
        assert not multiplies_in_tf32()
    assert multiplies_in_tf32()
    assert getattr(matmul, name) == rounded
