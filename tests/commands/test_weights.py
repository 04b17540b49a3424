"""Checkpoints of anyone: weights for the modules of `--factory`, and files that are programs behind `--trust-code`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from latentshift.commands import run
from latentshift.commands.common import pair_of

CODE = """
from torch import nn
from torch.nn.utils import spectral_norm
from torch.nn.utils.parametrizations import spectral_norm as parametrized

def generator():
    hidden = (nn.Linear(5, 24), nn.BatchNorm1d(24), nn.Tanh())
    return nn.Sequential(*hidden, nn.Linear(24, 48), nn.Tanh(), nn.Unflatten(1, (3, 4, 4)))

def critic(norm):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), norm(nn.Linear(16, 1)))

def old():
    return generator(), critic(spectral_norm)

def new():
    return generator(), critic(parametrized)

def plain():
    return generator(), critic(lambda layer: layer)

def other():
    return nn.Sequential(nn.Linear(5, 20), nn.Linear(20, 48), nn.Unflatten(1, (3, 4, 4))), None

def functions():
    return (lambda z: z), None
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`made(form)`: the networks of that form with weights of their own, in evaluation mode."""
    (tmp_path / "nets_of_mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    exec(CODE, space)

    def build(form: str = "old") -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(7)
        G, D = space[form]()
        with torch.no_grad():
            for _ in range(20):  # statistics and power iterations away from their beginnings
                D(G(torch.randn(8, 5)))
        return G.eval(), D.eval()

    return build


def states(G: nn.Module, D: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    return G.state_dict(), D.state_dict()


def nest(kind: str, G: nn.Module, D: nn.Module, folder: Path) -> dict[str, Any]:
    """Write the two networks as `kind` says; return what the command line needs for them."""
    g, d = states(G, D)
    file, second = folder / "both.pth", folder / "d.pth"
    spoilt = {k: torch.zeros_like(v) for k, v in g.items()}
    if kind == "one file":
        torch.save({"G": g, "D": d}, file)
    elif kind == "nested, wrapped, averaged":
        wrapped = {f"module.{k}": v for k, v in d.items()}
        torch.save({"epoch": 3, "models": {"netG": spoilt, "netG_ema": g, "netD": wrapped}, "optimG": {"state": {}}}, file)
    elif kind == "two files":
        torch.save(g, file)
        torch.save({"state_dict": d}, second)
    elif kind == "safetensors":
        file, second = folder / "g.safetensors", folder / "d.safetensors"
        save_file({k: v.contiguous() for k, v in g.items()}, file)
        save_file({k: v.contiguous() for k, v in d.items()}, second)
    else:
        file, second = folder / "g.npz", folder / "d.npz"
        np.savez(file, **{k: v.numpy() for k, v in g.items()})
        np.savez(second, **{k: v.numpy() for k, v in d.items()})
    return {"model": str(file), "critic": str(second) if second.exists() else None}


@pytest.mark.parametrize(
    ("kind", "saved", "loaded"),
    [
        ("one file", "old", "old"),
        ("one file", "new", "new"),
        ("nested, wrapped, averaged", "old", "new"),
        ("two files", "new", "old"),
        ("safetensors", "new", "plain"),
        ("npz", "old", "plain"),
    ],
)
def test_weights_from_any_file(kind: str, saved: str, loaded: str, made: Any, tmp_path: Path) -> None:
    G, D = made(saved)
    pair = pair_of(**nest(kind, G, D, tmp_path), factory=f"nets_of_mine.py:{loaded}")
    z = torch.randn(4, 5)
    with torch.no_grad():
        images = G(z)
        assert torch.equal(pair.generate(z), images)
        assert torch.allclose(pair.logit(images), D(images)[:, 0], atol=1e-6)
    assert not any(p.requires_grad for m in pair.modules() for p in m.parameters())


def test_wrong_weights_are_named(made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    G, D = made()
    torch.save(G.state_dict(), tmp_path / "g.pth")
    torch.save({"G": G.state_dict(), "D": D.state_dict()}, tmp_path / "both.pth")

    def fails(status: int, text: str, *words: str) -> None:
        assert run(["score", "--num", "2", *words]) == status
        assert text in capsys.readouterr().err

    fails(4, "'0.weight' is (24, 5) in the file and (20, 5)", "--model", "both.pth", "--factory", "nets_of_mine.py:other")
    fails(4, "not those of the D that the factory makes", "--model", "g.pth", "--factory", "nets_of_mine.py:old")
    fails(3, "takes no weights", "--model", "both.pth", "--factory", "nets_of_mine.py:functions")
    fails(4, "a folder where a file should be", "--model", str(tmp_path), "--factory", "nets_of_mine.py:old")
    assert run(["score", "--num", "2", "--model", "both.pth", "--factory", "nets_of_mine.py:old", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["samples"]) == 2


@pytest.fixture
def programs(made: Any, tmp_path: Path) -> dict[str, tuple[str, str]]:
    """(G, D) as TorchScript, as torch.export archives for any number of rows, and as whole modules."""
    import warnings

    G, D = made("plain")
    files = {}
    z, x = torch.randn(8, 5), torch.randn(8, 3, 4, 4)
    for kind in ("script", "export", "module"):
        files[kind] = (str(tmp_path / f"g_{kind}.pt"), str(tmp_path / f"d_{kind}.pt"))
        for net, example, file in zip((G, D), (z, x), files[kind], strict=True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if kind == "script":
                    torch.jit.trace(net, example).save(file)
                elif kind == "export":
                    rows = torch.export.Dim("rows", min=1, max=4096)
                    torch.export.save(torch.export.export(net, (example,), dynamic_shapes=({0: rows},)), file)
                else:
                    torch.save(net, file)
    return files


@pytest.mark.parametrize("kind", ["script", "export", "module"])
def test_programs_run_only_when_trusted(
    kind: str, programs: dict[str, tuple[str, str]], made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    g, d = programs[kind]
    words = ["refine", "--model", g, "--critic", d, "--num", "9", "--steps", "2", "--quiet", "--no-report"]
    assert run([*words, "--outdir", str(tmp_path / "out")]) == 4
    said = capsys.readouterr().err
    assert "--trust-code" in said
    assert "do anything that you can do" in said
    assert "--factory" in said
    assert run([*words, "--outdir", str(tmp_path / "out"), "--trust-code", "--z-size", "5"]) == 0, capsys.readouterr().err
    with np.load(tmp_path / "out/latents.npz") as got:
        G, D = made("plain")
        with torch.no_grad():
            assert np.allclose(D(G(torch.from_numpy(got["z"])))[:, 0], got["score"], atol=1e-5)
        assert (got["score"] >= got["score0"]).all()


def test_trust_is_not_asked_of_what_is_no_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["score", "--model", "fashion32", "--trust-code", "--num", "1"]) == 0
