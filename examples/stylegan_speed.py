"""A step on StyleGAN2 networks beside the publisher's own code: forward of G and D and the gradient to z, on a CPU.

    git clone https://github.com/NVlabs/stylegan2-ada-pytorch
    python examples/stylegan_speed.py --publisher stylegan2-ada-pytorch --out docs/stylegan-speed.json

The publisher's code is run beside this project, from your clone, and is no part of it (its licence allows research only). Its
networks get random weights, are pickled by its own code and read back by ours; images, scores and gradients of both must agree
before anything is timed. Both get the rows as they are (`--pad 1`; by default 4 rows are filled up to 8, and cost as many). One
thread, process CPU time, every variant once a round. Rounds are added to the result file until there are `--rounds`, so a run
that was cut goes on. Expected on a CPU with native bfloat16: about 0.65 of the time of the publisher's faster, unfused form in
float32, 0.3 in bfloat16. Seven rounds take about 7 minutes and 5 GB.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import pickle
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentshift.bench.measure import climbed, own
from latentshift.bench.tables import _cpu
from latentshift.engine.precision import networks
from latentshift.engine.run import Settings
from latentshift.files.names import read_path
from latentshift.model import Pair

BASE = "publisher, unfused"
Step = Callable[[Tensor], tuple[Tensor, Tensor]]


def publisher(folder: Path) -> Any:
    """Return the module of the publisher's networks in a clone; its helpers import `requests`, for downloads alone."""
    if not (folder / "training" / "networks.py").is_file():
        sys.exit(f"stylegan_speed: {folder} is no clone of stylegan2-ada-pytorch (no training/networks.py)")
    if importlib.util.find_spec("requests") is None:
        sys.modules["requests"] = types.ModuleType("requests")
    sys.path.insert(0, str(folder))
    return importlib.import_module("training.networks")


def random_weights(net: Any, seed: int) -> Any:
    """Return a network ready to run, with biases and noise strengths that are not zero, as trained ones have."""
    draw = torch.Generator().manual_seed(seed)
    for name, p in net.named_parameters():
        if name.endswith("noise_strength") or name.endswith("bias"):
            p.data.add_(0.1 * torch.randn(p.shape, generator=draw))
    return net.eval().requires_grad_(False)


def built(module: Any, resolution: int, base: int, widest: int) -> tuple[Any, Any]:
    """Return the publisher's G and D as its training configurations make them."""
    torch.manual_seed(0)
    image = {"c_dim": 0, "img_resolution": resolution, "img_channels": 3}
    size = {"channel_base": base, "channel_max": widest, "num_fp16_res": 4, "conv_clamp": 256}
    G = module.Generator(z_dim=512, w_dim=512, **image, mapping_kwargs={"num_layers": 8}, synthesis_kwargs=size)
    return random_weights(G, 1), random_weights(module.Discriminator(**image, **size), 2)


def through_a_file(G: Any, D: Any) -> Pair:
    """Return the pair that this library reads from the publisher's pickle; rows meet in D as the publisher's do."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.pkl"
        with path.open("wb") as file:
            pickle.dump({"training_set_kwargs": None, "G": G, "D": D, "G_ema": G, "augment_pipe": None}, file)
        return read_path(path, options={"grouping": "group"})


def theirs(G: Any, D: Any, fused: bool) -> Step:
    """One step of the publisher's networks in float32: scores (rows,) and the gradient to z."""

    def step(z: Tensor) -> tuple[Tensor, Tensor]:
        q = z.detach().clone().requires_grad_(True)
        images = G.synthesis(G.mapping(q, None), noise_mode="const", fused_modconv=fused, force_fp32=True)
        score = D(images, None, force_fp32=True)
        return score.detach()[:, 0], torch.autograd.grad(score.sum(), q)[0]

    return step


def ours(pair: Pair) -> Step:
    """The same of a pair, as plain autograd has it."""

    def step(z: Tensor) -> tuple[Tensor, Tensor]:
        q = z.detach().clone().requires_grad_(True)
        score = pair.logit(pair.generate(q))
        return score.detach(), torch.autograd.grad(score.sum(), q)[0]

    return step


def apart(a: Tensor, b: Tensor) -> float:
    """Largest difference over the largest value of `a`."""
    return float((a - b).abs().max() / a.abs().max())


def agreement(gradients: dict[str, Step], G: Any, pair: Pair, z: Tensor) -> dict[str, Any]:
    """Return how far each variant is from the publisher's unfused form: scores, gradients, and the share of equal signs.

    Exits where images or scores differ by more than 1e-4 in float32.
    """
    with torch.no_grad():
        images = apart(G(z, None, noise_mode="const", force_fp32=True), pair.generate(z))
    seen = {name: step(z) for name, step in gradients.items()}
    told: dict[str, Any] = {"images": float(f"{images:.3g}"), "variants": {}}
    score0, gradient0 = seen[BASE]
    for name, (score, gradient) in seen.items():
        found = {"score": apart(score0, score), "gradient": apart(gradient0, gradient)}
        found["signs"] = float((gradient.sign() == gradient0.sign()).float().mean())
        told["variants"][name] = {k: float(f"{v:.4g}") for k, v in found.items()}
        print(f"{name}: " + ", ".join(f"{k} {v:.3g}" for k, v in found.items()), flush=True)
    wrong = {n: v["score"] for n, v in told["variants"].items() if "bf16" not in n and not v["score"] < 1e-4}
    if wrong or not images < 1e-4:
        sys.exit(f"stylegan_speed: images {images:.1e} apart, scores {wrong}: other networks, so times say nothing")
    return told


def gains(
    variants: dict[str, Any], steps: dict[str, Step], G: Any, D: Any, z: Tensor, climb: int, keep: Callable[[], None]
) -> None:
    """Add to each variant the mean gain of the score after sign steps, read by the publisher's code; `keep` saves each."""

    def read(points: Tensor) -> float:
        with torch.no_grad():
            return float(D(G(points, None, noise_mode="const", force_fp32=True), None, force_fp32=True).mean())

    before = read(z)
    for name, found in variants.items():
        if "gain" not in found:
            found["gain"] = float(f"{read(climbed(steps[name], z, climb)) - before:.4g}")
            keep()


def table(result: dict[str, Any]) -> str:
    """Return the result as a Markdown table: medians over rounds, ratios to the publisher's unfused form within the round."""
    rounds, variants = result["rounds"], result["agreement"]["variants"]
    gained = all("gain" in v for v in variants.values())
    lines = [
        f"| variant | seconds a step | ratio [min .. max], {len(rounds)} rounds | scores, gradients apart | signs |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, v in variants.items():
        ratios = [r[name] / r[BASE] for r in rounds]
        seconds = statistics.median(r[name] for r in rounds)
        lines.append(
            f"| {name} | {seconds:.2f} | {statistics.median(ratios):.2f} [{min(ratios):.2f} .. {max(ratios):.2f}] | "
            f"{v['score']:.1e}, {v['gradient']:.1e} | {100 * v['signs']:.1f} % |" + (f" {v['gain']:.3g} |" if gained else "")
        )
    if gained:
        lines[0] += f" gain after {result['setting']['steps']} steps |"
        lines[1] += " --- |"
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--publisher", type=Path, required=True, help="a clone of NVlabs/stylegan2-ada-pytorch")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--channel-base", type=int, default=16384)
    parser.add_argument("--channel-max", type=int, default=512)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="sign steps of 0.05 for the gain; 0: none")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    G, D = built(publisher(args.publisher), args.resolution, args.channel_base, args.channel_max)
    pair = through_a_file(G, D)
    z = torch.randn(args.rows, 512, generator=torch.Generator().manual_seed(1))
    forms = {"engine fp32": networks(pair, Settings()).moving, "engine bf16": networks(pair, Settings(precision="bf16")).moving}
    steps = {BASE: theirs(G, D, False), "publisher, fused": theirs(G, D, True)}
    gradients = {**steps, **{name: ours(form) for name, form in forms.items()}}
    for name, form in forms.items():
        steps[name] = own(form, z, pad=1)
    setting = {k: getattr(args, k) for k in ("resolution", "channel_base", "channel_max", "rows", "steps")}
    result = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    if result.get("setting") != setting:
        machine = {"cpu": _cpu(), "torch": torch.__version__, "threads": 1, "clock": "process CPU time"}
        result = {"machine": machine, "setting": setting, "agreement": {}, "rounds": []}

    def keep() -> None:
        if args.out:
            args.out.write_text(json.dumps(result, indent=1) + "\n")

    if not result["agreement"]:
        result["agreement"] = agreement(gradients, G, pair, z)
        keep()
    elif len(result["rounds"]) < args.rounds:
        for step in steps.values():
            step(z)  # the first call fills caches
    while len(result["rounds"]) < args.rounds:
        took = {}
        for name, step in steps.items():
            before = time.process_time()
            step(z)
            took[name] = round(time.process_time() - before, 4)
        result["rounds"].append(took)
        print(took, flush=True)
        keep()
    if args.steps:
        gains(result["agreement"]["variants"], steps, G, D, z, args.steps, keep)
    print(table(result))


if __name__ == "__main__":
    main()
