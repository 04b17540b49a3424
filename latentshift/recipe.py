"""Named settings with their source: a strategy, its options, what is climbed, and the evidence. TOML in and out.

A recipe is data. `auto` is one name everywhere: the recipe that the evidence supports at this stage.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import registry
from .errors import FileError, UnknownNameError, UsageError


@dataclass(frozen=True)
class Recipe:
    """A strategy by name with options, and what wraps it.

    `keep_best` hands back the best point of the path; `target` ends a row at that score; `lower_share` moves only the rows
    that score below this share of raw samples; `guard` stops rows by a second opinion (`strategies.guard`; `critic:REF` names a
    second critic, which `build` is given as its `judge`). `then` names stages
    that follow, each as NAME or NAME:KEY=VALUE,...; `keep` is the share to accept, `drop` marks what is rejected instead of
    drawing it again. `link` is the objective's link (`latentshift.objective.Realness`).
    """

    name: str
    line: str = ""
    strategy: str = "ifgsm"
    options: Mapping[str, Any] = field(default_factory=dict)
    keep_best: bool = False
    target: float | None = None
    lower_share: float | None = None
    guard: str | None = None
    link: str = "logit"
    space: str = "z"
    then: tuple[str, ...] = ()
    keep: float | None = None
    drop: bool = False
    source: str = ""
    evidence: str = ""

    def build(self, judge: Any = None) -> Any:
        """Return the strategy, wrapped, with the stages that follow; `judge` is the term that the guard `critic` asks."""
        from .strategies.guard import Guard
        from .strategies.keep import compose
        from .strategies.wrappers import KeepBest, LowerShare, StopAt

        strategy = registry.make_strategy(self.strategy, **self.options)
        if self.keep_best:
            strategy = KeepBest(inner=strategy)
        if self.guard is not None:
            strategy = Guard(inner=strategy, rule=self.guard.partition(":")[0], judge=judge)
        if self.target is not None:
            strategy = StopAt(inner=strategy, target=self.target)
        if self.lower_share is not None:
            strategy = LowerShare(inner=strategy, share=self.lower_share)
        return compose(strategy, [stage_of(text) for text in self.then], share=self.keep, drop=self.drop)

    def check(self) -> None:
        """Raise what is wrong with the options, before there is a pair or a second critic."""
        replace(self, guard=None if (self.guard or "").startswith("critic:") else self.guard).build()

    def objective(self) -> Any:
        """Return the objective."""
        from .objective import Realness

        return Realness(link=self.link)  # type: ignore[arg-type]

    def changed(self, *, strategy: str | None = None, **changes: Any) -> Recipe:
        """Return this recipe with options (or its own fields) changed; None leaves a thing as it is.

        A strategy takes the recipe's place, wrappers and all. More steps without a step size are finer, not farther: the
        radius stays and the step size follows from it. The word "none" stands for an option that is off.
        """
        fields = {f.name for f in dataclasses.fields(self)} - {"options", "name"}
        mine = {k: v for k, v in changes.items() if k in fields and v is not None}
        options = {k: None if v == "none" else v for k, v in changes.items() if k not in fields and v is not None}
        base, kept = self, dict(self.options)
        if strategy is not None:
            registry.get("strategies", strategy)
            base, kept = Recipe(name=strategy, strategy=strategy, link=self.link, space=self.space), {}
        if "steps" in options and "step_size" not in options and kept.get("eps") is not None:
            kept.pop("step_size", None)
        same = not mine and not options and base is self
        return base if same else replace(base, name=_starred(base.name), options={**kept, **options}, **mine)

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values, every option of the strategy as it will be used."""
        kind = registry.get("strategies", self.strategy)
        made = kind(**self.options)
        used = {f.name: getattr(made, f.name) for f in dataclasses.fields(made)}
        return {**dataclasses.asdict(replace(self, options={})), "options": {k: v for k, v in used.items() if _plain(v)}}

    def toml(self) -> str:
        """Return the recipe as a TOML file, readable by `from_toml`."""
        rows = self.as_dict()
        top = [f"{k} = {_toml(v)}" for k, v in rows.items() if k != "options" and v is not None]
        inner = [f"{k} = {_toml(v)}" for k, v in rows["options"].items()]
        return "\n".join([*top, "", "[options]", *inner]) + "\n"

    @staticmethod
    def from_toml(text: str, where: str = "recipe") -> Recipe:
        """Return the recipe of a TOML text; raises FileError where it is none, UsageError for an unknown field."""
        try:
            rows = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise FileError(f"not TOML: {error}", where=where) from None
        return Recipe.from_dict(rows, where)

    @staticmethod
    def from_dict(rows: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """Return the recipe of plain values."""
        known = [f.name for f in dataclasses.fields(Recipe)]
        for name in rows:
            if name not in known:
                raise UnknownNameError("field", name, known, where=where, way_out=f"A recipe has: {', '.join(known)}.")
        options = {
            k: None if v == "none" else tuple(v) if isinstance(v, list) else v for k, v in dict(rows.get("options", {})).items()
        }
        rows = {**rows, "then": tuple(rows.get("then") or ())}
        return Recipe(**{"name": "custom", **{k: v for k, v in rows.items() if k != "options"}, "options": options})


def stage_of(text: str) -> Any:
    """Return the strategy of NAME or NAME:KEY=VALUE,KEY=VALUE.

    >>> stage_of("obrs:budget=4,steps=1").budget
    4
    """
    name, _, rest = text.partition(":")
    return registry.make_strategy(name.strip(), **dict(parse_option(part) for part in rest.split(",") if part.strip()))


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool | list | tuple)


def _starred(name: str) -> str:
    return name if name.endswith("*") else f"{name}*"


def _toml(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _published(name: str, alpha: float, steps: int, data: str, where: str) -> Recipe:
    return Recipe(
        name=f"advlatgan-z/{name}",
        line=f"the paper's {steps} sign steps of {alpha:g} for {data}, unconstrained",
        options={"steps": steps, "step_size": alpha, "eps": None, "support": "free"},
        source=f"AdvLatGAN, {where}",
        evidence="As published: no ball, no clamp. It raises D's score; on pairs of others it harms the images about as often.",
    )


def _others() -> tuple[Recipe, ...]:
    """The other methods at the settings that their papers or published code use."""
    evolgan = [
        Recipe(
            name=f"evolgan/a{rate:g}-b{budget}",
            line=f"EvolGAN with a = {rate:g} and a budget of {budget} evaluations",
            strategy="evolgan",
            options={"steps": budget, "rate": rate},
            source="EvolGAN (Roziere et al. 2020), settings of paper 001 tables 9 and 10",
            evidence="No gradient, no tie to the start: in few dimensions it walks to D's global best and loses modes.",
        )
        for rate, budget in ((0.0, 80), (0.5, 80), (0.5, 20), (1.0, 20))
    ]
    rows: tuple[tuple[str, str, str, dict[str, Any], str], ...] = (
        (
            "ddls/640",
            "ddls",
            "unadjusted Langevin, 640 steps of 0.01",
            {"steps": 640, "step_size": 0.01},
            "DDLS (Che et al. 2020)",
        ),
        (
            "repgan/640",
            "repgan",
            "REP-GAN, 640 steps of tau 0.01",
            {"steps": 640, "step_size": 0.01},
            "REP-GAN (Wang et al. 2021)",
        ),
        (
            "ex2mcmc/1000",
            "ex2mcmc",
            "Ex2MCMC, 1,000 rounds of 10 candidates and 3 local moves",
            {"steps": 1000, "step_size": 0.02, "candidates": 10, "local_steps": 3},
            "Ex2MCMC (Samsonov et al. 2022); its h = 0.01 is 0.02 here",
        ),
        (
            "dot/latent",
            "dot",
            "DOT in latent space, 10 steps of 0.01",
            {"steps": 10, "step_size": 0.01},
            "DOT (Tanaka 2019), README",
        ),
        ("dot/latent-100", "dot", "DOT in latent space, 100 steps of 0.01", {"steps": 100, "step_size": 0.01}, "DOT, script"),
        (
            "dgflow/kl",
            "dgflow",
            "DGflow, KL, 25 steps of 0.1",
            {"steps": 25, "step_size": 0.1, "gamma": 0.01},
            "DGflow (Ansari 2021)",
        ),
        (
            "dgflow/kl-stl10",
            "dgflow",
            "DGflow, KL, 25 steps of 0.05",
            {"steps": 25, "step_size": 0.05, "gamma": 0.01},
            "DGflow (Ansari 2021), STL-10 and Glow",
        ),
        ("mh-gan/640", "mh", "MH-GAN, chains of 640 draws", {"steps": 640}, "MH-GAN (Turner et al. 2019)"),
        ("drs/80", "drs", "rejection at the 80th percentile", {"percentile": 80.0}, "DRS (Azadi et al. 2018)"),
        ("obrs/10", "obrs", "one of ten draws accepted", {"budget": 10.0}, "OBRS (Verine et al. 2024)"),
        ("obrs/2", "obrs", "one of two draws accepted", {"budget": 2.0}, "OBRS (Verine et al. 2024)"),
        (
            "collaborative/z",
            "collaborative",
            "collaborative sampling on z, 50 steps of 0.1",
            {"steps": 50, "step_size": 0.1},
            "collaborative sampling (Liu et al. 2020)",
        ),
        (
            "polarity/modes",
            "polarity",
            "polarity sampling towards modes, rho -1",
            {"rho": -1.0},
            "polarity (Humayun et al. 2022)",
        ),
        ("polarity/magnet", "polarity", "uniform on the image manifold, rho 1", {"rho": 1.0}, "MaGNET (Humayun et al. 2022)"),
        ("best-of-n/20", "best-of-n", "the best of 20 draws by the critic", {"steps": 20}, "baseline at equal evaluations"),
        ("random-search/80", "random-search", "the best of 80 draws", {"steps": 80}, "EvolGAN's baseline (paper 001 E)"),
        (
            "mala/50",
            "mala",
            "Metropolis-adjusted Langevin, 50 steps of 0.01",
            {"steps": 50, "step_size": 0.01},
            "DDLS (Che et al. 2020), adjusted as in REP-GAN (Wang et al. 2021)",
        ),
        (
            "tarsier/13x6",
            "tarsier",
            "diagonal CMA, 13 generations of 6 from each start",
            {"steps": 13, "population": 6},
            "Tarsier (Roziere et al. 2021); started at z0 with a tenth of the prior's width, not at zero",
        ),
        (
            "pair-mining/hard",
            "pair-mining",
            "the hardest partner, 300 steps of 0.03",
            {"steps": 300, "step_size": 0.03, "eps": None},
            "AdvLatGAN-div (paper 000, Eq. 8), the demonstration on CIFAR-10",
        ),
        (
            "pair-mining/easy",
            "pair-mining",
            "the easiest partner, 300 steps of 0.03",
            {"steps": 300, "step_size": 0.03, "eps": None, "form": "easy"},
            "AdvLatGAN-div (paper 000, Eq. 8 inverted)",
        ),
        (
            "truncation/0.7",
            "truncation",
            "psi = 0.7",
            {"psi": 0.7},
            "StyleGAN (Karras et al. 2019); BigGAN (Brock et al. 2019)",
        ),
        (
            "ae-ot/2d",
            "ae-ot",
            "transport to given codes (codes=), angle 0.2, uniform mixing",
            {"angle": 0.2},
            "AE-OT (An et al. 2020), the 2-D demonstration",
        ),
        (
            "ae-ot/images",
            "ae-ot",
            "transport to given codes (codes=), angle 0.7, weight 0.75",
            {"angle": 0.7, "mix": 0.75},
            "AE-OT (An et al. 2020), images",
        ),
        ("top-share/half", "top-share", "the better half by the critic", {"share": 0.5}, "rejection by a threshold"),
        (
            "adam/latents",
            "adam",
            "20 Adam steps of 0.02 in a ball of 0.3",
            {"steps": 20, "step_size": 0.02},
            "constants of Kingma and Ba 2015; the step is ours and was not measured on images",
        ),
    )
    more = [Recipe(name=n, line=line, strategy=s, options=o, source=source) for n, s, line, o, source in rows]
    target = Recipe(
        name="dot/target",
        line="DOT on the images themselves, 100 steps of Adam",
        strategy="dot-target",
        options={"steps": 100, "step_size": 0.01},
        space="image",
        source="DOT (Tanaka 2019), 2-D notebook",
    )
    composed = [
        Recipe(
            name="refine-then-accept",
            line="five short sign steps, then one of two accepted by OBRS; rejected seeds are drawn again",
            options={"steps": 5, "eps": 0.1},
            then=("obrs:budget=2",),
            source="I-FGSM (AdvLatGAN-z) and OBRS (Verine et al. 2024)",
        ),
        Recipe(
            name="pick-then-refine",
            line="the best of four draws, then five short sign steps",
            strategy="best-of-n",
            options={"steps": 4},
            then=("ifgsm:steps=5,eps=0.1",),
            source="best-of-N and I-FGSM (AdvLatGAN-z)",
        ),
    ]
    return (*evolgan, *more, *composed, target)


AUTO = Recipe(
    name="auto",
    line="a few short sign steps for the lower half by D, support kept, the better end (unverified without real images)",
    options={"steps": 2, "step_size": 0.02, "eps": 0.2, "decay": True, "support": "auto", "unit": "prior"},
    keep_best=True,
    lower_share=0.5,
    source="I-FGSM (paper 001 Eq. 5 to 7), shortened",
    evidence=(
        "Ten pairs that others trained, two judges each: own D's score rose in 30 of 30 rows, the images improved in 16 and "
        "got worse in 11. Four steps of 0.05 for the lower half still cost one of two judges of a sprite pair 6 standard "
        "errors; two of 0.02 are worse nowhere and better on three of the ten measured (docs/third-party.md). Without real "
        "images nothing is verified; with them (--reals, reals=) `auto` climbs an honest critic: see auto/reals."
    ),
)

AUTO_REALS = Recipe(
    name="auto/reals",
    line="short sign steps up an honest critic: two, or as many as real images allow where `auto` is given some",
    options={"steps": 2, "step_size": 0.05, "eps": None, "support": "auto", "unit": "prior"},
    source="AdvLatGAN-qua's D step with G frozen (paper 000 Alg. 1); I-FGSM",
    evidence=(
        "An honest critic, fitted to real images against raw and refined samples (a small head on a frozen network's features, "
        "plus a small pixel network), climbed as far as real images held out of the fit allow (latentshift.train.depth; two "
        "steps where nothing is known), in G's first hidden layer where G is a row of layers and --space does not say z: see "
        "docs/third-party.md. It needs a critic fitted to real images (latentshift critic, or --reals); up another critic it "
        "has no evidence."
    ),
)

# the best at a budget of evaluations, by examples/beat_it.py; figures on seeds that were not searched on: docs/methods.md
BUDGETS: tuple[Recipe, ...] = (
    Recipe(
        name="auto/points-20",
        line="for 2-D pairs at 20 evaluations a sample: nine sign steps that shrink, hardly a ball",
        options={"steps": 9, "eps": 0.91, "step_size": 0.11, "norm": "inf", "decay": True, "unit": "prior", "support": "auto"},
        source="best of 49 candidates, examples/beat_it.py (I-FGSM, paper 001 Eq. 5 to 7)",
        evidence=(
            "Exact W1 on seeds held out from the search: 25 Gaussians 0.137 raw, 0.118 the auto of images, 0.067 this; ring "
            "0.123, 0.089, 0.066; grid 0.474, 0.399, 0.165. The modes stay as even as they were or more so. For points only."
        ),
    ),
    Recipe(
        name="auto/points-100",
        line="for 2-D pairs at 100 evaluations a sample: 49 normalised steps that shrink, the better end",
        options={"steps": 49, "eps": 0.74, "step_size": 0.037, "norm": "2", "decay": True, "unit": "prior", "support": "auto"},
        keep_best=True,
        source="best of 37 candidates, examples/beat_it.py (I-FGM, paper 001 Eq. 5 to 7)",
        evidence=(
            "Exact W1 on held-out seeds, auto/points-20 and this: 25 Gaussians 0.067, 0.068; ring 0.066, 0.058; grid 0.165, "
            "0.156. Five times the passes for little. The modes stay as even as they were or more so. For points only."
        ),
    ),
)

FASHION = Recipe(
    name="fashion32/kid-20",
    line="best in KID on the bundled images at 20 evaluations a sample: slightly narrower z, then DOT in nine steps",
    strategy="truncation",
    options={"psi": 0.98},
    then=("dot:steps=9,step_size=0.061,optimizer=adam,k=0.046",),
    source="best of 52 candidates but those that move pixels, examples/beat_it.py (DOT, Tanaka 2019)",
    evidence=(
        "KID by fashion32-judge on seeds held out from the search: 10.9e-3 raw, 7.9e-3 this (-3.0e-3 +- 0.2e-3). Two other "
        "judges see no gain there, and one sees harm on the pair most like it: so it is not what `auto` does. For fashion32 "
        "only (docs/methods.md)."
    ),
)

BUILTIN: tuple[Recipe, ...] = (
    AUTO,
    AUTO_REALS,
    *BUDGETS,
    FASHION,
    Recipe(
        name="advlatgan-z/ball",
        line="Eq. 5 as written: sign steps inside a ball of 0.3, support kept",
        options={"steps": 20, "eps": 0.3},
        source="AdvLatGAN, paper 001 Eq. 5 to 7",
    ),
    Recipe(
        name="advlatgan-z/momentum",
        line="MI-FGSM inside a ball of 0.3",
        strategy="mifgsm",
        options={"steps": 20, "eps": 0.3},
        source="AdvLatGAN, paper 000 E, Table 10",
    ),
    Recipe(
        name="advlatgan-z/pgd",
        line="PGD inside a ball of 0.3",
        strategy="pgd",
        options={"steps": 20, "eps": 0.3},
        source="AdvLatGAN, paper 000 E, Table 10",
    ),
    _published("toy", 0.003, 8000, "Ring and Grid", "paper 000 H.1; paper 001 E.2"),
    _published("mnist-2d", 0.03, 30, "MNIST with a 2-D latent", "paper 000 H.2; paper 001 E.4"),
    _published("cifar10", 0.05, 20, "CIFAR-10", "paper 000 H.3, J.1.1"),
    _published("stl10", 0.05, 20, "STL-10", "paper 000 H.3, J.1.1"),
    _published("cifar10-draft", 0.01, 100, "CIFAR-10 and STL-10", "paper 001 E.4"),
    _published("sngan-large", 0.01, 100, "LSUN, CelebA, ImageNet with SNGAN", "paper 000 J.1.2"),
    _published("wgan-gp-large", 0.002, 100, "LSUN, CelebA with WGAN-GP", "paper 000 J.1.2"),
    _published("div", 0.01, 100, "CIFAR-10 after AdvLatGAN-div training", "paper 000 J.2.1"),
    _published("stylegan2", 0.001, 150, "FFHQ and AFHQ with StyleGAN2-ada", "paper 000 H.4"),
    *_others(),
)


def recipes() -> dict[str, Recipe]:
    """Return all recipes by name: built in and of plug-ins."""
    found: dict[str, Recipe] = {}
    for thing in registry.everything("recipes")[0].values():
        for recipe in [thing] if isinstance(thing, Recipe) else thing if isinstance(thing, Sequence) else []:
            found[recipe.name] = recipe
    return found


def get_recipe(name: str) -> Recipe:
    """Return a recipe by name; raises UnknownNameError with near matches."""
    known = recipes()
    if name not in known:
        raise UnknownNameError("recipe", name, known)
    return known[name]


def parse_option(text: str) -> tuple[str, Any]:
    """Return (name, value) of KEY=VALUE; the value is read as TOML would read it, else as a word.

    >>> parse_option("mu=0.9"), parse_option("support=shell"), parse_option("eps=none")
    (('mu', 0.9), ('support', 'shell'), ('eps', None))
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"cannot read the option {text!r}", way_out="Write --option KEY=VALUE.")
    value = value.strip()
    if value.lower() == "none":
        return key.strip(), None
    try:
        return key.strip(), tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value
