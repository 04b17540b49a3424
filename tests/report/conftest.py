"""Runs to make pages of, and a browser to look at them with."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from latentshift import Sampler
from latentshift.commands import run


@pytest.fixture(scope="session")
def image_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 64 samples with its page."""
    folder = tmp_path_factory.mktemp("runs") / "image"
    assert run(["refine", "--num", "64", "--quiet", "--outdir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def many_run(image_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 2,000 samples."""
    folder = tmp_path_factory.mktemp("runs") / "many"
    assert run(["refine", "--num", "2000", "--steps", "1", "--quiet", "--outdir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def point_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 2-D points."""
    folder = tmp_path_factory.mktemp("runs") / "points"
    torch.manual_seed(0)
    G = torch.nn.Linear(2, 2).eval()
    D = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).eval()
    result = Sampler(G, D, z_size=2, recipe="advlatgan-z/ball").refine(seeds=range(40), before=True)
    result.save(folder)
    return folder


@pytest.fixture
def copied(image_run: Path, tmp_path: Path) -> Path:
    """A run's folder that a test may damage."""
    shutil.copytree(image_run, tmp_path / "run")
    return tmp_path / "run"


HOSTILE = (
    "</script><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    '{{style}}" onload="alert(1)'
)


@pytest.fixture
def hostile(copied: Path) -> Path:
    """A run whose every text was written by an enemy."""
    record = json.loads((copied / "run.json").read_text())
    for key in ("model", "model_sha256", "plan", "device", "torch", "precision"):
        record[key] = HOSTILE
    record["warnings"] = [HOSTILE, "a\u2028b"]
    record["recipe"] |= {"name": HOSTILE, "evidence": HOSTILE, "line": HOSTILE, "source": HOSTILE}
    record["recipe"]["options"][HOSTILE] = HOSTILE
    record["request"] |= {"model": HOSTILE, HOSTILE: HOSTILE}
    (copied / "run.json").write_text(json.dumps(record))
    lines = [json.loads(line) for line in (copied / "samples.jsonl").read_text().splitlines()]
    for line in lines:
        line["stopped"] = HOSTILE
    lines[0]["image"] = "../../../etc/passwd"
    lines[1]["image"] = f"{HOSTILE}.png"
    (copied / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return copied


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Debian's chromium without a window; its downloads go to `tmp_path / "down"`."""
    driver, program = shutil.which("chromedriver"), _chromium()
    if driver is None or program is None:
        pytest.skip("chromium and its driver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for word in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
        *("disable-component-update", "disable-sync", f"user-data-dir={tmp_path / 'profile'}", "window-size=1280,900"),
    ):
        options.add_argument(f"--{word}")
    (tmp_path / "down").mkdir()
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "down")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver, log_output=os.devnull))
    try:
        yield made
    finally:
        made.quit()
