"""The numbers of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run is made of, apart from its pieces. Times are counted in generator steps."""

    steps: int
    loss: str = "hinge"
    batch: int = 64
    g_batch: int | None = None  # None: as batch
    n_d: int = 1
    lr_g: float = 2e-4
    lr_d: float = 4e-4
    betas: tuple[float, float] = (0.5, 0.999)
    decay_share: float = 0.25  # the learning rate falls linearly to 0 over this last share of the steps
    ema: float = 0.999
    spectral_norm: bool = False  # on every weighted layer of D
    ema_d: float = 0.0  # above 0: also average D's weights (with spectral norms multiplied in), as `Trainer.average_d`
    train_g: bool = True  # False: G stays frozen in evaluation mode and D alone learns (an honest critic)
    seed: int = 0
    weight_decay: float = 0.0  # of both optimisers
    pair_in_d: bool = False  # D's step sees both halves of G's pairs, and every real image twice (MSGAN's code)
    precision: str = "fp32"  # fp32, or bf16: networks run in bfloat16 where that is safe, weights stay float32

    def rate(self, step: int) -> float:
        """Return the factor on the learning rates at `step`."""
        start = self.steps * (1 - self.decay_share)
        return 1.0 if step < start else max(0.0, (self.steps - step) / max(1.0, self.steps - start))
