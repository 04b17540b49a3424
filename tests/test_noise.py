import numpy as np
import pytest
import torch

from latentshift.errors import UsageError
from latentshift.noise import Draw, check_seeds, latents, parse_seeds, philox, row_seeds
from latentshift.space import Normal, TruncatedNormal, Uniform


def test_latents_are_those_of_stylegans_generate():
    z = latents([85, 0, 2**32 - 1], (512,), Normal())
    for row, seed in zip(z, [85, 0, 2**32 - 1], strict=True):
        assert np.array_equal(row, np.random.RandomState(seed).randn(1, 512).astype(np.float32)[0])


def test_uniform_and_truncated_latents():
    z = latents([3], (7,), Uniform(-1, 1))
    assert np.array_equal(z[0], np.random.RandomState(3).uniform(-1, 1, (1, 7)).astype(np.float32)[0])
    truncnorm = pytest.importorskip("scipy.stats").truncnorm
    mine = latents([11], (1000,), TruncatedNormal(2.0, 0.5))[0]
    theirs = 0.5 * truncnorm.rvs(-2, 2, size=(1, 1000), random_state=np.random.RandomState(11))[0]
    np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_philox_known_answers():
    """The published vectors of Philox4x32-10 (Random123's kat_vectors)."""

    def words(*values):
        return [torch.tensor([[v]], dtype=torch.int64) for v in values]

    zero = philox(tuple(words(0, 0)), words(0, 0, 0, 0))
    assert [int(w) for w in zero] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    f = 0xFFFFFFFF
    ones = philox(tuple(words(f, f)), words(f, f, f, f))
    assert [int(w) for w in ones] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    pi = philox(tuple(words(0xA4093822, 0x299F31D0)), words(0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344))
    assert [int(w) for w in pi] == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_noise_belongs_to_the_row():
    seeds = torch.arange(1000, 1040)
    whole = Draw(seeds).normal(3, "step", (5,))
    for rows in (slice(0, 1), slice(7, 10), slice(33, 40)):
        assert torch.equal(Draw(seeds[rows]).normal(3, "step", (5,)), whole[rows])
    assert torch.equal(Draw(seeds).normal(torch.tensor(3), "step", (5,)), whole)
    assert not torch.equal(Draw(seeds).normal(4, "step", (5,)), whole)
    assert not torch.equal(Draw(seeds).normal(3, "other", (5,)), whole)


def test_noise_has_the_law_it_says():
    n = Draw(torch.arange(4000)).normal(0, "law", (25,)).double()
    assert abs(float(n.mean())) < 4 / np.sqrt(n.numel())
    assert abs(float(n.var()) - 1) < 4 * np.sqrt(2 / n.numel())
    assert abs(float((n**4).mean()) - 3) < 0.1
    u = Draw(torch.arange(4000)).uniform(0, "law", (25,)).double()
    assert float(u.min()) > 0
    assert float(u.max()) < 1
    histogram = torch.histc(u, 20, 0, 1)
    assert float(((histogram - 5000) ** 2 / 5000).sum()) < 50  # chi squared, 19 degrees


def test_noise_leaves_the_global_state_alone():
    before = torch.get_rng_state()
    Draw(torch.arange(8)).normal(0, "x", (3,))
    assert torch.equal(before, torch.get_rng_state())


def test_row_seeds_depend_on_the_row_alone():
    z = np.random.RandomState(0).randn(6, 4).astype(np.float32)
    assert row_seeds(z)[2:4] == row_seeds(z[2:4])
    assert len(set(row_seeds(z))) == 6
    assert check_seeds(row_seeds(z))


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0-3", [0, 1, 2, 3]), ("1,4-6", [1, 4, 5, 6]), ("85", [85]), (" 2 , 5-6 ", [2, 5, 6]), ("4294967295", [4294967295])],
)
def test_seeds_are_read(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "5-", "-5", "3-1", "1,,2", "1.5", "4294967296", "1,1", "0-3,2", "0-9999999999"])
def test_bad_seeds_are_refused(text):
    with pytest.raises(UsageError):
        parse_seeds(text)


@pytest.mark.parametrize("seeds", [[-1], [2**32], [1.5], [True], []])
def test_bad_seed_numbers_are_refused(seeds):
    with pytest.raises(UsageError):
        check_seeds(seeds)
