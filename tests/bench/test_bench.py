"""The benchmark: the papers' networks with the multiply-adds counted by hand, tables that hold what was measured."""

import json

import pytest
import torch

from latentshift.bench import measure, methods, pairs, tables
from latentshift.commands import run


@pytest.mark.parametrize(("name", "macs"), [("A", 322.2e6), ("B", 477.0e6)])
def test_the_networks_are_the_papers(name, macs):
    with torch.device("meta"):
        up, down = pairs._pair_a(1) if name == "A" else pairs._pair_b(1, False)
        G, D = pairs.LayerNet(up), pairs.LayerNet(down)
    x = torch.zeros(1, 100, device="meta")
    for net in (G, D):
        net.to("meta").eval()
    total = pairs._macs(G, x)
    images = G(x)
    assert images.shape == (1, 3, 48, 48)
    assert total + pairs._macs(D, images) == pytest.approx(macs, rel=1e-3)


def test_every_variant_climbs_and_agrees():
    torch.set_num_threads(1)
    state = torch.get_rng_state()
    nets = pairs.networks("B", shrink=8)
    assert torch.equal(state, torch.get_rng_state())
    rows = measure.compare(nets, (8,), rounds=2, steps=3)
    by = {r.variant: r for r in rows}
    assert set(by) == {"published-style loop", "eager, z alone", "engine fp32", "engine bf16"}
    reference = by["published-style loop"]
    assert reference.ratio == reference.low == reference.high == 1
    assert reference.gain > 0
    for r in rows:
        assert r.low <= r.ratio <= r.high
        assert r.signs >= (0.85 if "bf16" in r.variant else 0.999)
        assert r.gain == pytest.approx(reference.gain, rel=0.05 if "bf16" in r.variant else 1e-3)
    assert all(p.grad is None or not p.grad.any() for p in nets.G.parameters())


def test_methods_stand_beside_ifgsm():
    found = methods.per_step(pairs.networks("A", shrink=16), rows=8, rounds=1)
    assert found["ifgsm"] == (1, 1, 1)
    assert set(found) == {"ifgsm", "dot", "ddls", "mala"}


def test_the_command_extends_a_result_file(tmp_path, capsys):
    out = tmp_path / "r.json"
    words = ["bench", "--rounds", "1", "--steps", "0", "--shrink", "16", "--out", str(out), "--quiet"]
    assert run([*words, "--pairs", "A", "--rows", "1"]) == 0
    assert run([*words, "--pairs", "A", "--rows", "8", "--json"]) == 0
    both = json.loads(out.read_text())
    assert [(r["rows"], r["pair"]) for r in both["rows"]] == [(1, "A")] * 7 + [(8, "A")] * 4
    assert all(r["gain"] is None for r in both["rows"])
    assert "| A | 8 | engine fp32 |" in tables.markdown(both)
    for wrong in (["--pairs", "C"], ["--rows", "x"], ["--rows", "0"], ["--shrink", "3"]):
        capsys.readouterr()
        assert run(["bench", *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_the_figure_and_the_committed_results_belong_together():
    from pathlib import Path

    from latentshift.bench.figure import figure

    docs = Path(__file__).parents[2] / "docs"
    result = json.loads((docs / "overhead.json").read_text())
    assert figure(result) == (docs / "overhead.svg").read_text()
    page = (docs / "overhead.md").read_text()
    for line in tables.markdown(result).splitlines():
        assert line in page
