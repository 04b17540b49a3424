"""The published StyleGAN2-ada and StyleGAN3 networks by name. Addresses as on the publisher's pages."""

from __future__ import annotations

from latentshift.files.published import Published

_ADA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/"
_SG3 = "https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan3/versions/1/files/"
_SG2 = "https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan2/versions/1/files/"
_ADA_LICENCE = "NVIDIA Source Code License for StyleGAN2 with ADA: research or evaluation only"
_SG3_LICENCE = "NVIDIA Source Code License for StyleGAN3: research or evaluation only"
_SG2_LICENCE = "Nvidia Source Code License-NC: research or evaluation only"


def _ada(name: str, file: str, what: str) -> Published:
    return Published(f"stylegan2-{name}", f"{_ADA}{file}.pkl", f"StyleGAN2-ada, {what}", _ADA_LICENCE)


def _sg3(kind: str, data: str, size: int, what: str, short: str = "") -> Published:
    name, file = f"stylegan3-{kind}-{short or data}", f"stylegan3-{kind}-{data}-{size}x{size}.pkl"
    return Published(name, _SG3 + file, f"StyleGAN3-{kind.upper()}, {what}, {size} px", _SG3_LICENCE)


def _sg2(data: str, size: int, what: str) -> Published:
    name = f"stylegan2-{data}-{size}x{size}"
    return Published(name, f"{_SG2}{name}.pkl", f"StyleGAN2 (of the StyleGAN3 code base), {what}, {size} px", _SG2_LICENCE)


_TRANSFER = "transfer-learning-source-nets/"
FFHQ = _ada("ffhq", "ffhq", "FFHQ faces, 1024 px")
METFACES = _ada("metfaces", "metfaces", "MetFaces paintings, 1024 px")
AFHQCAT = _ada("afhqcat", "afhqcat", "AFHQ cats, 512 px")
AFHQDOG = _ada("afhqdog", "afhqdog", "AFHQ dogs, 512 px")
AFHQWILD = _ada("afhqwild", "afhqwild", "AFHQ wild animals, 512 px")
CIFAR10 = _ada("cifar10", "cifar10", "CIFAR-10, ten classes, 32 px")
BRECAHAD = _ada("brecahad", "brecahad", "BreCaHAD histology, 512 px")
FFHQ256 = _ada("ffhq256", f"{_TRANSFER}ffhq-res256-mirror-paper256-noaug", "FFHQ faces, 256 px")
CELEBAHQ256 = _ada(
    "celebahq256", f"{_TRANSFER}celebahq-res256-mirror-paper256-kimg100000-ada-target0.5", "CelebA-HQ faces, 256 px"
)
LSUNDOG256 = _ada("lsundog256", f"{_TRANSFER}lsundog-res256-paper256-kimg100000-noaug", "LSUN dogs, 256 px")
FFHQ512 = _ada("ffhq512", f"{_TRANSFER}ffhq-res512-mirror-stylegan2-noaug", "FFHQ faces, 512 px")
FFHQ1024 = _ada("ffhq1024", f"{_TRANSFER}ffhq-res1024-mirror-stylegan2-noaug", "FFHQ faces, 1024 px")
SG3_T_FFHQ = _sg3("t", "ffhq", 1024, "FFHQ faces")
SG3_R_FFHQ = _sg3("r", "ffhq", 1024, "FFHQ faces")
SG3_T_AFHQV2 = _sg3("t", "afhqv2", 512, "AFHQ v2 animals")
SG3_R_AFHQV2 = _sg3("r", "afhqv2", 512, "AFHQ v2 animals")
SG3_T_METFACES = _sg3("t", "metfaces", 1024, "MetFaces paintings")
SG3_R_METFACES = _sg3("r", "metfaces", 1024, "MetFaces paintings")
SG3_T_FFHQU = _sg3("t", "ffhqu", 1024, "FFHQ faces, unaligned")
SG3_R_FFHQU = _sg3("r", "ffhqu", 1024, "FFHQ faces, unaligned")
SG3_T_FFHQU256 = _sg3("t", "ffhqu", 256, "FFHQ faces, unaligned", "ffhqu256")
SG3_R_FFHQU256 = _sg3("r", "ffhqu", 256, "FFHQ faces, unaligned", "ffhqu256")
SG3_T_METFACESU = _sg3("t", "metfacesu", 1024, "MetFaces paintings, unaligned")
SG3_R_METFACESU = _sg3("r", "metfacesu", 1024, "MetFaces paintings, unaligned")

# The StyleGAN2 networks that were published with StyleGAN3, named as their files are.
SG2_FFHQ_1024 = _sg2("ffhq", 1024, "FFHQ faces")
SG2_FFHQ_512 = _sg2("ffhq", 512, "FFHQ faces")
SG2_FFHQ_256 = _sg2("ffhq", 256, "FFHQ faces")
SG2_FFHQU_1024 = _sg2("ffhqu", 1024, "FFHQ faces, unaligned")
SG2_FFHQU_256 = _sg2("ffhqu", 256, "FFHQ faces, unaligned")
SG2_METFACES_1024 = _sg2("metfaces", 1024, "MetFaces paintings")
SG2_METFACESU_1024 = _sg2("metfacesu", 1024, "MetFaces paintings, unaligned")
SG2_AFHQV2_512 = _sg2("afhqv2", 512, "AFHQ v2 animals")
SG2_AFHQCAT_512 = _sg2("afhqcat", 512, "AFHQ cats")
SG2_AFHQDOG_512 = _sg2("afhqdog", 512, "AFHQ dogs")
SG2_AFHQWILD_512 = _sg2("afhqwild", 512, "AFHQ wild animals")
SG2_BRECAHAD_512 = _sg2("brecahad", 512, "BreCaHAD histology")
SG2_CIFAR10_32 = _sg2("cifar10", 32, "CIFAR-10")
SG2_CELEBAHQ_256 = _sg2("celebahq", 256, "CelebA-HQ faces")
SG2_LSUNDOG_256 = _sg2("lsundog", 256, "LSUN dogs")
