"""`refine` warns of what 32 samples show, and only of that."""

from __future__ import annotations

import pytest

from latentshift import load
from latentshift.commands import run
from latentshift.doctor.examine import quick

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


def test_a_usable_pair_gives_no_warning(pair_name, reference):
    if pair_name.startswith(("broken", "absent")):
        pytest.skip("not a usable pair")
    assert not quick(load(str(reference("reference", "pairs", pair_name))))
