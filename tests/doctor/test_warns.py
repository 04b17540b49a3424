"""`refine` warns of what 32 samples show, and only of that."""

from __future__ import annotations

import numpy as np
import pytest

from latentshift import load
from latentshift.commands import run
from latentshift.doctor.examine import examine, quick
from latentshift.files.images import read_images
from latentshift.files.reals import read_reals

#: the words that the warnings of a broken pair must hold
SAID = {
    "broken-dead-critic": ["there is no signal", "all samples look alike"],
    "broken-fgan-collapsed": ["all samples look alike", "with a spread of"],
    "broken-inverted-labels": ["all samples look alike"],
}


@pytest.mark.parametrize("name", sorted(SAID))
def test_refine_warns_of_a_broken_pair_and_goes_on(name, reference, tmp_path, capfd):
    folder = reference("reference", "pairs", name)
    assert run(["refine", "--model", str(folder), "--seeds", "0-1", "--outdir", str(tmp_path / "out")]) == 0
    warned = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")]
    for words in SAID[name]:
        assert sum(words in line for line in warned) == 1, warned


def test_quiet_keeps_what_is_wrong(reference, capfd):
    folder = reference("reference", "pairs", "broken-dead-critic")
    assert run(["doctor", "--model", str(folder), "--num", "32", "--quiet"]) == 0
    out, err = capfd.readouterr()
    assert not out
    assert sum(line.startswith("broken: ") for line in err.splitlines()) == len(err.splitlines()) >= 2
    assert run(["doctor", "--model", "ring", "--num", "32", "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")


def test_a_usable_pair_gives_no_warning(pair_name, reference):
    if pair_name.startswith(("broken", "absent")):
        pytest.skip("not a usable pair")
    assert not quick(load(str(reference("reference", "pairs", pair_name))))


@pytest.mark.parametrize(
    ("folder", "file", "warns"),
    [("mnist", "t10k-images-idx3-ubyte.gz", True), ("fashion-mnist", "t10k6978-images-idx3-ubyte.xz", False)],
)
def test_real_images_of_another_kind_are_noticed(folder, file, warns, reference, tmp_path, capfd):
    """By `refine`, where they calibrate the critic, and by the doctor, which then foretells nothing."""
    images = read_images(reference("data", folder, file)).images[:600]
    np.save(tmp_path / "some.npy", images)
    words = ["refine", "--seeds", "0-1", "--strategy", "obrs", "--reals", str(tmp_path / "some.npy"), "--no-report"]
    assert run([*words, "--outdir", str(tmp_path / "out")]) == 0
    warned = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: real images of another kind")]
    assert len(warned) == warns
    pair = load("fashion32")
    reals = read_reals(tmp_path / "some.npy", pair).images
    found = examine(pair, reals, rows=64, pilots=50, settings=("auto",))
    assert ("other-kind" in {f.topic for f in found.findings}) == warns
    (told,) = found.forecasts
    assert ("another kind" in told.evidence) == warns
    assert not warns or told.answer == "unsure"
