"""Checks that need real images: what D knows, and whether G's samples are of their kind."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ..calibration import auc
from ..files.pictures import to_planes
from .finding import Finding
from .kin import other_kind
from .probe import Probe


def knows(probe: Probe, reals: Tensor, labels: Tensor | None) -> tuple[float | None, list[Finding]]:
    """Return D's AUC of real images (in the pair's range) against raw samples, and what follows."""
    if not probe.able or probe.dead:
        return None, []
    value = auc(probe.scored(reals, labels).cpu().numpy(), probe.scores.cpu().numpy())
    return value, list(_knowledge(probe, value))


def _knowledge(probe: Probe, value: float) -> Iterator[Finding]:
    seen = f"D ranks a real image above a raw sample in {value:.0%} of the cases (AUC {value:.3f})"
    critic = probe.pair.need_critic()
    if value < 0.3:
        other = "low" if critic.real_is == "high" else "high"
        yield Finding(
            "turned-round",
            "broken",
            seen,
            "it is trained the other way round: climbing makes samples worse.",
            f"--critic-sign {other}",
        )
    elif value < 0.6:
        yield Finding(
            "knows-nothing",
            "warning",
            seen,
            "it hardly tells real from generated: climbing it follows its quirks.",
            "Fit a critic to your images: latentshift critic.",
        )
    elif value > 0.99:
        yield Finding(
            "knows-everything",
            "note",
            seen,
            "it tells them by something that refining may not reach; its scale says little about degrees.",
        )
    else:
        yield Finding("knows", "good", seen, "it tells them apart (which alone does not say that climbing it helps).")


def kind(probe: Probe, reals: Tensor) -> Iterator[Finding]:
    """Real images that are plainly of another kind than G's; a G of far less variety."""
    if reals.ndim != 4 or probe.images.ndim != 4:
        return
    low, high = probe.pair.image_range
    a = ((reals[:1000].to(probe.images).double() - low) / (high - low)).flatten(1)
    b = probe.pixels.flatten(1)
    apart = float((a.mean(0) - b.mean(0)).abs().mean()) / (float(a.std(0).mean()) + 1e-6)
    said = f"the mean real image lies {apart:.1f} standard deviations of a pixel from the mean sample" if apart > 1.0 else ""
    said = said or other_kind(to_planes(probe.images.cpu(), (low, high)), to_planes(reals.cpu(), (low, high)))
    if said:
        yield Finding(
            "other-kind",
            "warning",
            said,
            "they look like another kind of image, or another range, and nothing is foretold by them.",
            "Check --reals and --range.",
        )
    lost = float(b.var(0).sum()) / (float(a.var(0).sum()) + 1e-9)
    if lost < 0.3:
        yield Finding(
            "little-variety",
            "warning",
            f"samples vary {lost:.0%} as much as real images do",
            "G has lost much of the data, and refining does not bring it back.",
        )
