"""The benchmark: the papers' networks with the multiply-adds counted by hand, tables that hold what was measured."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from latentshift.bench import growth, measure, methods, pairs, pieces, residual, tables, trained
from latentshift.commands import run
from latentshift.errors import RequestError
from latentshift.files.folder import read_pair
from latentshift.sampler import load


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
    assert [(r["rows"], r["pair"]) for r in both["rows"]] == [(1, "A")] * 5 + [(8, "A")] * 4
    assert all(r["gain"] is None for r in both["rows"])
    assert "| A | 8 | engine fp32 |" in tables.markdown(both)
    for wrong in (["--pairs", "C"], ["--rows", "x"], ["--rows", "0"], ["--shrink", "3"]):
        capsys.readouterr()
        assert run(["bench", *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_the_figure_the_page_and_the_committed_results_belong_together():
    from latentshift.bench.figure import figure
    from latentshift.bench.page import flat, placed

    docs = Path(__file__).parents[2] / "docs"
    result = json.loads((docs / "overhead.json").read_text())
    assert figure(flat(result)) == (docs / "overhead.svg").read_text()
    page = (docs / "overhead.md").read_text()
    assert placed(page, result) == page
    for pair in ("A", "B"):
        assert f"| {pair} | 16 | engine fp32 |" in page


def options(**more):
    return SimpleNamespace(pairs=["A"], rows=[8], rounds=1, steps=1, shrink=16, references=None, only=[""], **more)


def test_pieces_are_gone_on_with_and_kept_apart_by_machine(tmp_path, monkeypatch):
    done = []
    work = {name: lambda o, say, n=name: done.append(n) or {"nothing": float("nan"), "name": n} for name in ("a", "b", "c")}
    monkeypatch.setattr(pieces, "pieces", lambda o: work)
    path, say = tmp_path / "r.json", lambda line: None
    assert pieces.gone_on(path, options(), minutes=-1, say=say)[1] == ["a", "b", "c"]
    assert not path.exists()
    work["c"], whole = lambda o, say: 1 / 0, work["c"]
    with pytest.raises(ZeroDivisionError):
        pieces.gone_on(path, options(), say=say)
    work["c"] = whole
    result, left = pieces.gone_on(path, options(), say=say)
    assert (done, left) == (["a", "b", "c"], [])
    assert result["pieces"]["a"]["found"] == {"nothing": None, "name": "a"}
    assert json.loads(path.read_text()) == result
    other = options()
    other.shrink = 8
    with pytest.raises(RequestError, match="another machine"):
        pieces.gone_on(path, other, say=say)


def test_a_table_of_pieces_has_gains_and_both_baselines(tmp_path):
    from latentshift.bench.page import flat, sections

    todo = pieces.pieces(options())
    assert {"steps A 8", "gains A", "methods A", "residual", "bookkeeping", "growth", "memory", "trained fashion32"} < set(todo)
    names = ("gains A", "whole A EvolGAN, 80 candidates fp32", "whole A EvolGAN, 80 candidates bf16")
    nets = pairs.networks("A", shrink=16)
    found = {name: {"found": todo[name](options(), lambda line: None)} for name in names}
    one = measure.compare(nets, (1,), rounds=1, steps=0)
    found["steps A 1"] = {"found": {"rows": [r.as_dict() for r in one]}}
    found["methods A"] = {"found": {"step_to_ifgsm": dict.fromkeys(("dot", "ddls", "mala"), (1, 1, 1)), "evolution": (1, 1, 1),
                                    "published": methods.published_step(nets, rounds=1)}}  # fmt: skip
    result = {"run": {"shrink": 16}, "pieces": found}
    rows = flat(result)["rows"]
    assert {r["variant"] for r in rows} >= {measure.PUBLISHED, measure.DROPPED, "engine fp32"}
    assert all(r["gain"] is not None for r in rows if r["variant"] != measure.DROPPED)
    assert all(r["dropped"] > 0 for r in rows)
    table = sections(result)["whole"]
    assert "| A | EvolGAN, 80 candidates | 81 / 0 |" in table
    assert "628.7 / 630.6" in table


def test_the_residual_pair_has_equal_scores():
    found = residual.rewritten(rows=2, rounds=1, shrink=16)
    assert found["scores_differ"] < 1e-5
    assert found["to_plain"][0] > 0


def test_bookkeeping_and_lines():
    assert 0 < growth.bookkeeping(8, rounds=1) < 0.1
    line = growth.fit([1, 2, 4], [3.0, 5.0, 9.0])
    assert (line["at_zero"], line["each"]) == (pytest.approx(1), pytest.approx(2))
    assert line["miss"] < 1e-9


def test_what_a_precision_keeps():
    pair = load("ring")
    same = trained.kept(pair, rows=40, steps=3, precision="fp32")
    assert (same["gain_share"], same["signs"], same["gain_share_error"]) == (1, 1, 0)
    assert trained.kept(pair, rows=40, steps=3)["precision"] == "bf16"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fashion32", "fashion28-dcgan-bce", "mnist28-wgangp-bn"])
def test_bf16_keeps_the_gain_and_the_signs_on_trained_pairs(name, reference):
    pair = load(name) if name == "fashion32" else read_pair(reference("reference", "pairs", name))
    found = trained.kept(pair)
    assert found["precision"] == "bf16"
    assert found["gain_fp32"] > 0
    assert found["gain_share"] >= 0.97
    assert found["signs"] >= 0.90
