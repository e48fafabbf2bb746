"""The bins of JS and of positions are the same for numpy arrays and for torch tensors, at the edges too."""

import numpy as np
import torch

from tokenshift.analysis.thresholds import HIGH, JS_BINS, JS_EDGES, NEAR_ZERO, POSITION_BINS, js_bins, position_bins


def test_bins_of_js_hold_their_lower_edges() -> None:
    edges = np.array(JS_EDGES, np.float32)
    below, above = np.nextafter(edges, np.float32(0)), np.nextafter(edges, np.float32(1))
    js = np.concatenate([[0.0], below, edges, above, [0.69]]).astype(np.float32)
    expected = [0, *range(3), *range(1, 4), *range(1, 4), 3]
    assert js_bins(js).tolist() == expected
    assert js_bins(torch.tensor(js)).tolist() == expected
    assert js_bins(torch.tensor(js)).dtype == torch.int64
    assert len(JS_BINS) == len(JS_EDGES) + 1
    np.testing.assert_array_equal(js_bins(js) == 0, js < NEAR_ZERO)
    assert ((js_bins(js) == 3) >= (js > HIGH)).all()


def test_bins_of_positions_are_exact() -> None:
    for length in (1, 2, 19, 20, 21, 60, 333):
        position = np.arange(length)
        expected = [next(part for part in range(20) if 20 * p < (part + 1) * length) for p in range(length)]
        assert position_bins(position, np.full(length, length)).tolist() == expected
        assert position_bins(torch.arange(length), torch.full((length,), length)).tolist() == expected
        assert max(expected) < POSITION_BINS
