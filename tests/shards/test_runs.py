"""`refine --shard-size`: what it writes, what a resume does, what verify, status and top say, what is refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentshift.commands import run

RING = ["refine", "--model", "ring", "--strategy", "ifgsm", "--steps", "2", "--chunk", "64", "--quiet"]


def digests(folder: Path) -> dict[str, str]:
    """Return the checksums of all shards and latents, by path."""
    files = [
        p
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.relative_to(folder).parts[0].startswith(("shard-", "latents-"))
    ]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def listed(folder: Path) -> list[int]:
    return [json.loads(line)["index"] for line in (folder / "manifest.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run([*RING, "--num", "500", "--shard-size", "90", "--outdir", str(out)]) == 0
    return out


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def refused(capsys: pytest.CaptureFixture[str], status: int, *words: Any) -> str:
    capsys.readouterr()
    assert run([str(w) for w in words]) == status
    err = capsys.readouterr().err.strip().splitlines()
    assert err[-1].startswith("latentshift: error: "), err
    assert "Traceback" not in "".join(err)
    return err[-1]


def test_what_is_written(whole: Path) -> None:
    record = json.loads((whole / "run.json").read_text())
    assert record["status"] == "complete"
    assert record["rows"] == record["seeds"] == 500
    assert record["shards"]["count"] == record["shards"]["done"] == 6
    assert record["ledger"]["g_backward"] == 1000
    assert listed(whole) == list(range(6))
    assert not list(whole.glob(".unfinished"))
    with np.load(whole / "latents-000005.npz") as data:
        assert data["seeds"].tolist() == list(range(450, 500))
        assert np.array_equal(data["z0"][7], np.random.RandomState(457).randn(1, 2).astype(np.float32)[0])
    lines = [json.loads(x) for x in (whole / "shard-000005/samples.jsonl").read_text().splitlines()]
    assert [x["seed"] for x in lines] == list(range(450, 500))


def test_lines_are_those_of_an_unsharded_run(whole: Path, tmp_path: Path) -> None:
    assert run([*RING, "--num", "500", "--outdir", str(tmp_path / "plain")]) == 0
    plain = (tmp_path / "plain/samples.jsonl").read_text()
    mine = "".join((whole / f"shard-{k:06d}/samples.jsonl").read_text() for k in range(6))
    cut = [[re.sub(r'"evaluations": \d+, ', "", x) for x in text.splitlines()] for text in (plain, mine)]
    assert cut[0] == cut[1]  # without the pictures of before there is one look at the start less
    with np.load(tmp_path / "plain/latents.npz") as a:
        for name in ("z0", "z", "score0", "score", "x"):
            parts = [np.load(whole / f"latents-{k:06d}.npz")[name] for k in range(6)]
            assert np.array_equal(a[name], np.concatenate(parts))


def test_chunks_do_not_matter(whole: Path, tmp_path: Path) -> None:
    words = [w if w != "64" else "24" for w in RING]
    assert run([*words, "--num", "500", "--shard-size", "90", "--outdir", str(tmp_path / "out")]) == 0
    assert digests(tmp_path / "out") == digests(whole)


def test_resume_makes_what_is_missing_and_nothing_else(whole: Path, copy: Path) -> None:
    lines = (copy / "manifest.jsonl").read_text().splitlines(keepends=True)
    (copy / "manifest.jsonl").write_text(lines[4] + lines[1] + lines[3][:40])  # cut in a line
    shutil.rmtree(copy / "shard-000000")
    (copy / "latents-000001.npz").write_bytes(b"")
    kept = (copy / "latents-000004.npz").stat().st_mtime_ns
    assert run(["refine", "--resume", str(copy), "--quiet"]) == 0
    assert digests(copy) == digests(whole)
    assert (copy / "latents-000004.npz").stat().st_mtime_ns == kept
    assert run(["verify", str(copy), "--quiet"]) == 0
    text = (copy / "manifest.jsonl").read_text()
    assert text.startswith(lines[4] + lines[1] + lines[3][:40] + "\n")  # append-only: the cut line was ended, not mended
    assert sorted(json.loads(x)["index"] for x in text.splitlines() if x.endswith("}")) == [0, 1, 1, 2, 3, 4, 5]


def test_a_complete_run_is_looked_at_too(whole: Path, copy: Path) -> None:
    assert run(["refine", "--resume", str(copy), "--quiet"]) == 0
    assert (copy / "manifest.jsonl").read_bytes() == (whole / "manifest.jsonl").read_bytes()
    (copy / "shard-000002/samples.jsonl").write_text("x" * (copy / "shard-000002/samples.jsonl").stat().st_size)
    assert run(["refine", "--resume", str(copy), "--quiet"]) == 0
    assert digests(copy) == digests(whole)


DAMAGE = {
    "a flipped byte": lambda p: flip(p / "latents-000003.npz"),
    "a picture too many": lambda p: (p / "shard-000001/other.png").write_bytes(b""),
    "a lost shard": lambda p: shutil.rmtree(p / "shard-000004"),
    "lost latents": lambda p: (p / "latents-000000.npz").unlink(),
    "a line cut in the middle": lambda p: (p / "manifest.jsonl").write_bytes((p / "manifest.jsonl").read_bytes()[:-100]),
    "a line of another run": lambda p: edit(p, lambda row: row | {"seeds": "1000-1089"}),
    "two shards in each other's place": lambda p: swap(p / "latents-000000.npz", p / "latents-000001.npz"),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap(a: Path, b: Path) -> None:
    x, y = a.read_bytes(), b.read_bytes()
    a.write_bytes(y)
    b.write_bytes(x)


def edit(folder: Path, change: Any, line: int = 2) -> None:
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    lines[line] = json.dumps(change(json.loads(lines[line])))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", DAMAGE)
def test_verify_sees_damage_and_resume_mends_it(kind: str, whole: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DAMAGE[kind](copy)
    line = refused(capsys, 4, "verify", copy)
    assert f"refine --resume {copy}" in line
    assert run(["refine", "--resume", str(copy), "--quiet"]) == 0
    assert digests(copy) == digests(whole)
    assert run(["verify", str(copy), "--json"]) == 0


def test_verify_looks_inside(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shard whose files match their checksums and hold other seeds."""
    path = copy / "latents-000002.npz"
    with np.load(path) as data:
        found = {k: data[k] for k in data.files}
    found["seeds"][0] = found["seeds"][1]
    np.savez(path, **found)
    piece = {"name": path.name, "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    edit(copy, lambda row: row | {"latents": piece})
    refused(capsys, 4, "verify", copy)
    assert run(["verify", str(copy), "--quick"]) == 0


def test_status_and_top(whole: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    lines = (copy / "manifest.jsonl").read_text().splitlines(keepends=True)
    (copy / "manifest.jsonl").write_text("".join(lines[:4]))
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(record | {"status": "running"}))
    assert run(["status", str(copy), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["status"], said["rows_done"], said["shards_done"]) == ("cut", 360, 4)
    scores = np.concatenate([np.load(whole / f"latents-{k:06d}.npz")["score"] for k in range(6)]).astype(float)
    before = np.concatenate([np.load(whole / f"latents-{k:06d}.npz")["score0"] for k in range(6)]).astype(float)
    for more, value in (([], scores), (["--by", "gain"], scores - before), (["--worst"], -scores)):
        assert run(["top", str(whole), "-k", "37", "--json", *more]) == 0
        said = json.loads(capsys.readouterr().out)
        assert [row["seed"] for row in said["top"]] == np.argsort(-value, kind="stable")[:37].tolist()
    assert run(["top", str(whole), "-k", "9", "--out", str(copy / "best.npz"), "--quiet"]) == 0
    words = ["refine", "--model", "ring", "--latents", str(copy / "best.npz"), "--strategy", "ifgsm", "--steps", "0"]
    assert run([*words, "--quiet", "--outdir", str(copy / "again")]) == 0
    with np.load(copy / "again/latents.npz") as data:
        assert np.allclose(data["score0"], np.sort(scores)[::-1][:9], atol=1e-5)


def check(name: str, value: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parents[2] / "docs/schema" / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(value, schema)


def test_everything_follows_its_schema(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in (whole / "manifest.jsonl").read_text().splitlines():
        check("manifest", json.loads(line))
    check("run", json.loads((whole / "run.json").read_text()))
    words = [*RING, "--num", "70", "--shard-size", "30", "--shards-as", "tar", "--json"]
    said = {"verify": ["verify", str(whole), "--json"], "status": ["status", str(whole), "--json"]}
    said |= {"top": ["top", str(whole), "-k", "3", "--json"], "plan": [*words, "--dry-run"]}
    said |= {"refine": [*words, "--outdir", str(tmp_path / "out")]}
    for name, line in said.items():
        capsys.readouterr()
        assert run(line) == 0
        check(name, json.loads(capsys.readouterr().out))
    assert "top" in said  # the schemas "status", "verify", "top" and "manifest" are read above


def test_a_dry_run_of_a_billion_is_sane_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = [*RING, "--seeds", "0-999999999", "--shard-size", "10000", "--shards-as", "tar", "--json", "--dry-run"]
    assert run([*words, "--outdir", str(out)]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert not out.exists()
    assert (plan["samples"], plan["shards"]) == (10**9, 10**5)
    assert 30e6 < plan["manifest_bytes"] < 100e6
    assert 0 < plan["resume_seconds"] < 120
    assert 1e11 < plan["bytes"] < 1e13
    assert plan["estimate_seconds"] > 1000
