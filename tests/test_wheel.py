"""The wheel installs and runs from a folder that is not the checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_wheel_runs_elsewhere(tmp_path):
    pytest.importorskip("build")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "latentshift").rglob("*.py")}
    assert sources <= set(names), f"the wheel lacks {sorted(sources - set(names))[:3]}"
    plugins = {"latentshift_plugins/" + p.relative_to(ROOT / "plugins").as_posix() for p in (ROOT / "plugins").rglob("*.py")}
    assert plugins <= set(names), f"the wheel lacks {sorted(plugins - set(names))[:3]}"
    for pair in ("fashion32", "fashion32-sn", "ring", "grid"):
        assert {f"latentshift/data/{pair}/{f}" for f in ("G.safetensors", "D.safetensors", "card.json")} <= set(names)
    assert sum(i.file_size for i in zipfile.ZipFile(wheel).infolist()) < 20 * 2**20
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        f"import latentshift; assert latentshift.__file__.startswith({str(target)!r}), latentshift.__file__\n"
        "from latentshift.commands import run\n"
        "sys.exit(run(['refine', '--num', '8', '--outdir', 'out']))"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(target) + os.pathsep + sysconfig.get_path("purelib")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "grid.png").exists()
