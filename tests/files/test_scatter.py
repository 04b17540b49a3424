"""The picture: every point is where it should be, on one scale, and nothing is lost without a word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from latentshift.errors import UsageError
from latentshift.files.scatter import _SIDE, _TOP, Panel, before_after, scatter

BLUE = (0, 0, 255)


def bluish(image: Any) -> np.ndarray[Any, Any]:
    x = np.asarray(image).astype(int)
    return (x[..., 2] - x[..., 0] > 120) & (x[..., 2] - x[..., 1] > 120)


def centre(mask: np.ndarray[Any, Any]) -> tuple[float, float]:
    y, x = np.nonzero(mask)
    return float(x.mean() + 0.5), float(y.mean() + 0.5)


@pytest.mark.parametrize("point", [(0.0, 0.0), (-1.5, 1.0), (1.25, -1.75)])
def test_a_point_is_drawn_where_it_is(point: tuple[float, float]) -> None:
    image = scatter([Panel("", [point], colour=BLUE)], box=(-2, -2, 2, 2), size=400)
    x, y = centre(bluish(image))
    assert x == pytest.approx(_SIDE + (point[0] + 2) * 100, abs=1)
    assert y == pytest.approx(_TOP + (2 - point[1]) * 100, abs=1)


def test_panels_share_one_scale() -> None:
    a, b = [[-3.0, 0.0], [5.0, 2.0]], [[-3.0, 0.0]]
    image = scatter([Panel("", a, colour=BLUE), Panel("", b, colour=BLUE)], marks=[[0.0, 0.0]], size=300)
    mask = bluish(image)
    first, second = mask[:, _SIDE : _SIDE + 300].copy(), mask[:, 2 * _SIDE + 300 :]
    x, y = centre(second)
    assert first[round(y - 0.5), round(x - 0.5)]
    assert np.count_nonzero(first) == 2 * np.count_nonzero(second)


def test_denser_places_are_darker() -> None:
    points = [[0.0, 0.0]] + [[1.0, 0.0]] * 400
    row = np.asarray(scatter([Panel("", points, colour=BLUE)], box=(-2, -2, 2, 2), size=400))[_TOP + 200].astype(int)
    once, often = row[_SIDE + 200], row[_SIDE + 300]
    assert once[0] > often[0] + 80
    assert often[0] < 10


def test_what_is_not_shown_is_counted() -> None:
    inside = np.random.default_rng(0).normal(size=(50, 2))
    odd = np.concatenate([inside, [[np.nan, 0.0], [np.inf, 1.0], [99.0, 99.0]]])
    view = (-5.0, -5.0, 5.0, 5.0)
    with_note = np.asarray(scatter([Panel("t", odd, colour=BLUE)], box=view))
    without = np.asarray(scatter([Panel("t", inside, colour=BLUE)], box=view))
    said = np.asarray(scatter([Panel("t", inside, "3 of 53 outside", colour=BLUE)], box=view))
    assert not np.array_equal(with_note, without)
    assert np.array_equal(with_note, said)


def test_a_far_point_does_not_shrink_the_rest() -> None:
    inside = np.random.default_rng(0).uniform(-1, 1, size=(1000, 2))
    far = np.concatenate([inside, [[1e6, 1e6]]])
    spread = [np.ptp(np.nonzero(bluish(scatter([Panel("", p, colour=BLUE)])))[1]) for p in (inside, far)]
    assert spread[1] > 0.9 * spread[0] > 300


def test_arrows_show_where_few_points_came_from() -> None:
    before, after = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[0.9, 0.0], [1.0, 0.1]])
    plain, arrows = (np.asarray(before_after(before, after, arrows=n)) for n in (0, 2))
    # the right panel has grey shafts; the left one is the same up to the box, which is made of the same points
    assert (arrows[:, 520:] != plain[:, 520:]).any()
    many = before_after(np.repeat(before, 60, 0), np.repeat(after, 60, 0), arrows=100)
    assert np.array_equal(
        np.asarray(many), np.asarray(before_after(np.repeat(before, 60, 0), np.repeat(after, 60, 0), arrows=0))
    )


def test_one_point_and_no_point_can_be_drawn() -> None:
    assert scatter([Panel("one", [[3.0, 3.0]])]).size == scatter([Panel("none", np.zeros((0, 2)))]).size


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(4, 3\).*three"):
        scatter([Panel("three", np.zeros((4, 3)))])
    with pytest.raises(UsageError, match="1 starts for 2"):
        scatter([Panel("p", np.zeros((2, 2)), start=np.zeros((1, 2)))])
    with pytest.raises(UsageError, match="one panel"):
        scatter([])
    with pytest.raises(UsageError, match="box"):
        scatter([Panel("p", np.zeros((2, 2)))], box=(1, 0, 0, 1))
