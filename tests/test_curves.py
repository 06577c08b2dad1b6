"""Curves of training: their kinds, thinning, and how a terminal shows them."""

import pytest

from vgid.curves import DRIFT, RECALL, losses, measured, sparkline, thinned, trace

CURVES = {
    "forget": [(1, 4.0), (2, 0.5)],
    "recall forget": [(2, 0.25)],
    "drift retain": [(2, 0.0123)],
}


def test_curves_by_kind() -> None:
    assert losses(CURVES) == {"forget": [(1, 4.0), (2, 0.5)]}
    assert measured(CURVES, RECALL) == {"forget": [(2, 0.25)]} and measured(CURVES, DRIFT) == {"retain": [(2, 0.0123)]}


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([], 4, ""),
        ([3.0], 4, "▁"),
        ([2.0, 2.0, 2.0], 4, "▁▁▁"),  # nothing changes
        ([0.0, 7.0, 3.0], 4, "▁█▄"),  # eight heights from the least to the largest
        ([0.0, 2.0, 6.0, 8.0, 3.0, 5.0], 3, "▁█▅"),  # means 1, 7 and 4: 3/6 of 7 steps is 3.5, which rounds to 4
    ],
)
def test_a_sparkline(values: list[float], width: int, line: str) -> None:
    assert sparkline(values, width) == line


def test_a_trace_says_losses_recall_and_drift() -> None:
    assert trace(CURVES) == "forget █▁ 0.5, recall forget 25%, drift retain 0.012" and trace({}) == ""


def test_a_thinned_point_is_the_mean_of_its_neighbours_at_their_last_step() -> None:
    curves = {"forget": [(1, 1.0), (2, 3.0), (3, 5.0), (4, 7.0)], "recall forget": [(4, 0.5)], "none": []}
    assert thinned(curves, 2) == {"forget": [[2, 2.0], [4, 6.0]], "recall forget": [[4, 0.5]], "none": []}
    assert thinned(curves, 9)["forget"] == [[1, 1.0], [2, 3.0], [3, 5.0], [4, 7.0]]
