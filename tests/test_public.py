"""The public names, and what listings cost."""

import subprocess
import sys
import time

import pytest

import latentshift
from latentshift.errors import LatentshiftError


def test_public_names():
    assert sorted(latentshift.__all__) == ["LatentshiftError", "Pair", "Result", "Sampler", "__version__", "load"]
    for name in latentshift.__all__:
        assert getattr(latentshift, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        latentshift.nothing  # noqa: B018


def test_import_does_not_import_torch():
    code = "import latentshift, sys; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("args", [["--help"], ["models"], ["strategies"], ["critics"], ["recipes"], ["strategies", "ifgsm"]])
def test_listings_never_import_torch(args):
    code = (
        "import sys\nfrom latentshift.commands import run\n"
        f"status = run({args!r})\nassert 'torch' not in sys.modules, 'torch was imported'\nsys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


def test_errors_carry_statuses():
    def tree(cls):
        yield cls
        for sub in cls.__subclasses__():
            yield from tree(sub)

    statuses = {cls.__name__: cls.exit_status for cls in tree(LatentshiftError)}
    assert statuses["UsageError"] == 2
    assert statuses["UnknownNameError"] == statuses["MissingCapabilityError"] == statuses["ShapeError"] == 3
    assert statuses["DamagedFileError"] == statuses["UnsafeFileError"] == 4
    assert (statuses["DownloadError"], statuses["OutputError"], statuses["DeviceError"], statuses["NumericError"]) == (
        5,
        6,
        7,
        8,
    )
    assert statuses["Interrupted"] == 130


def test_lazy_listing_is_quick():
    """Not a speed claim: a guard against an import of something heavy, with five times the promised time."""
    began = time.process_time()
    subprocess.run([sys.executable, "-m", "latentshift", "recipes"], check=True, capture_output=True)
    assert time.process_time() - began < 1.5
