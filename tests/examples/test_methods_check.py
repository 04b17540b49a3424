"""The independent figures of examples/methods_check.py: its networks, its volumes, and the laws in docs/methods.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.shared
def test_the_networks_are_the_pairs(script: Any, reference: Any) -> None:
    module, table = script("methods_check"), script("methods_table")
    folder = reference("reference", "dot_25gaussians")
    pair = table.load_pair(folder)
    z = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    generate, score = module.networks(folder)
    theirs = pair.generate(torch.from_numpy(z).float()).detach()
    np.testing.assert_allclose(generate(z), theirs.numpy(), atol=1e-4)
    np.testing.assert_allclose(score(theirs.numpy()), pair.logit(theirs).detach().numpy(), atol=1e-4)


@pytest.mark.shared
def test_volumes_are_those_of_autograd(script: Any, reference: Any) -> None:
    module, table = script("methods_check"), script("methods_table")
    folder = reference("reference", "dot_25gaussians")
    pair = table.load_pair(folder)
    z = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (5, 2))).float()
    found = module.volume(module.layers(folder, "G"), z.numpy())
    for row, volume in zip(z, found, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda p: pair.generate(p[None])[0], row)
        assert volume == pytest.approx(abs(float(torch.linalg.det(jacobian.double()))), rel=1e-3, abs=1e-6)


@pytest.mark.shared
def test_the_laws_of_the_page(script: Any, reference: Any, capsys: pytest.CaptureFixture[str]) -> None:
    module = script("methods_check")
    module.laws(reference("reference", "dot_25gaussians"), 20_000)
    found = rows(capsys.readouterr().out)
    written = rows((ROOT / "docs" / "methods.md").read_text("utf-8"))
    assert found
    for name, (hq, kl) in found.items():
        assert written[name] == (pytest.approx(hq, abs=2.0), pytest.approx(kl, rel=0.1, abs=0.02)), name


def rows(text: str) -> dict[str, tuple[float, float]]:
    """Return (HQ, KL) by law."""
    lines = text.split("| law | ")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[c.strip() for c in line.split("|")] for line in lines if line.startswith("|")]
    return {c[1]: (float(c[2]), float(c[3])) for c in cells}


def test_both_forms_of_the_optimiser_climb(script: Any) -> None:
    module = script("methods_check")
    z0 = np.random.default_rng(2).uniform(-1, 1, (200, 2))
    for form in ("full", "diagonal"):
        best = module.tarsier(lambda z: -((z - 0.9) ** 2).sum(1), z0, form, np.random.default_rng(3))
        assert np.abs(best).max() <= 1
        assert np.median(np.linalg.norm(best - 0.9, axis=1)) < 0.5 * np.median(np.linalg.norm(z0 - 0.9, axis=1))
