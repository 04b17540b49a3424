"""`latentshift refine` as a user types it: what it writes, what it refuses, and what survives a cut."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from latentshift.commands import run
from latentshift.files.names import BundledPair

ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def cli(*args, **kw):
    return subprocess.run([sys.executable, "-m", "latentshift", *map(str, args)], capture_output=True, text=True, env=ENV, **kw)


def digests(folder):
    keep = lambda p: p.suffix in (".png", ".npz", ".jsonl")  # noqa: E731
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if keep(p)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    assert (
        run(["refine", "--seeds", "0-19,85", "--steps", "6", "--chunk", "8", "--save-before", "--quiet", "--outdir", str(out)])
        == 0
    )
    return out


def test_what_a_run_writes(whole):
    names = {p.name for p in whole.iterdir()}
    assert {"run.json", "latents.npz", "samples.jsonl", "grid.png", "seed0000.png", "seed0085.png", "before"} <= names
    assert not (whole / "parts").exists()
    record = json.loads((whole / "run.json").read_text())
    assert record["status"] == "complete"
    assert record["rows"] == 21
    assert record["recipe"]["name"] == "auto*"
    assert record["recipe"]["options"]["steps"] == 6
    assert record["ledger"]["g_backward"] > 0
    assert record["ledger"]["g_backward"] == record["ledger"]["d_backward"]
    assert record["fit"]["pilot_seeds"] == [2**32 - 64, 2**32 - 1]
    assert len(record["score_per_step"]) == 7
    with np.load(whole / "latents.npz", allow_pickle=False) as data:
        assert data["seeds"].tolist() == [*range(20), 85]
        assert str(data["space"]) == "z"
        assert str(data["model_sha256"]) == record["model_sha256"]
        expected = np.random.RandomState(85).randn(1, 64).astype(np.float32)[0]
        assert np.array_equal(data["z0"][-1], expected)
        assert data["z"].shape == (21, 64)
    lines = [json.loads(line) for line in (whole / "samples.jsonl").read_text().splitlines()]
    assert [r["seed"] for r in lines] == [*range(20), 85]
    fields = "seed label score_before score_after gain displacement_l2 displacement_linf evaluations stopped image"
    assert set(lines[0]) == {*fields.split(), "judge_before", "judge_after"}
    assert all((r["gain"] == 0) == (r["stopped"] == "good_already") or r["gain"] >= 0 for r in lines)
    with Image.open(whole / "seed0085.png") as picture:
        assert picture.size == (32, 32)
        assert picture.text["seed"] == "seed0085"
        assert picture.text["model"] == "fashion32"
    for row in lines:
        if row["stopped"] == "good_already":
            name = row["image"]
            a, b = (np.asarray(Image.open(p)) for p in (whole / name, whole / "before" / name))
            assert np.array_equal(a, b)


def test_the_same_run_gives_the_same_bytes_in_other_chunks_and_orders(whole, tmp_path):
    out = tmp_path / "again"
    assert (
        run(["refine", "--seeds", "0-19,85", "--steps", "6", "--chunk", "16", "--save-before", "--quiet", "--outdir", str(out)])
        == 0
    )
    assert digests(out) == digests(whole)


def test_saved_latents_are_taken_up(whole, tmp_path):
    out = tmp_path / "more"
    assert (
        run(
            [
                "refine",
                "--latents",
                str(whole / "latents.npz"),
                "--strategy",
                "ifgsm",
                "--steps",
                "0",
                "--quiet",
                "--outdir",
                str(out),
            ]
        )
        == 0
    )
    with np.load(out / "latents.npz") as a, np.load(whole / "latents.npz") as b:
        assert np.array_equal(a["z"], b["z"])
        assert np.array_equal(a["score"], b["score"])


@pytest.mark.parametrize("moment", [0.02, 0.3, 0.6, 1.0])
def test_sigkill_loses_at_most_a_chunk_and_resume_gives_the_same_bytes(tmp_path, moment):
    args = ["refine", "--seeds", "0-47", "--strategy", "ifgsm", "--steps", "60", "--chunk", "8", "--quiet"]
    uncut = tmp_path / "uncut"
    assert run([*args, "--outdir", str(uncut)]) == 0
    out = tmp_path / "cut"
    process = subprocess.Popen(
        [sys.executable, "-m", "latentshift", *args, "--outdir", str(out)], env=ENV, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    wanted = max(1, int(moment * 5))
    while len(list((out / "parts").glob("*.npz"))) < wanted and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list((out / "parts").glob("*.npz")))
    if (out / "latents.npz").exists():
        pytest.skip("the run was over before it could be killed")
    assert done >= wanted
    assert not list(out.glob("*.part.png"))
    assert json.loads((out / "run.json").read_text())["status"] == "running"
    finished = cli("refine", "--resume", out)
    assert finished.returncode == 0, finished.stderr
    assert f"{8 * done} of 48 samples are there" in finished.stderr
    assert digests(out) == digests(uncut)
    a, b = (json.loads((p / "run.json").read_text()) for p in (out, uncut))
    assert a["ledger"] == b["ledger"]
    assert a["status"] == "complete"


def test_ctrl_c_keeps_what_is_finished(tmp_path):
    out = tmp_path / "out"
    args = ["refine", "--seeds", "0-95", "--strategy", "ifgsm", "--steps", "100", "--chunk", "8", "--outdir", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "latentshift", *args], env=ENV, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((out / "parts").glob("*.npz")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    line = err.strip().splitlines()[-1]
    assert line.startswith("latentshift: error: interrupted: ")
    assert f"Go on with: latentshift refine --resume {out}" in line
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "interrupted"
    rows = [json.loads(x) for x in (out / "samples.jsonl").read_text().splitlines()]
    assert 8 <= len(rows) < 96
    assert all((out / r["image"]).exists() for r in rows)
    again = cli("refine", "--resume", out, "--quiet")
    assert again.returncode == 0, again.stderr
    assert len((out / "samples.jsonl").read_text().splitlines()) == 96


def test_resume_refuses_what_changed(tmp_path):
    model = tmp_path / "ring"
    shutil.copytree(BundledPair("ring", "").folder, model)
    out = tmp_path / "out"
    assert run(["refine", "--model", str(model), "--num", "40", "--chunk", "8", "--quiet", "--outdir", str(out)]) == 0
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**record, "status": "interrupted"}))
    done = cli("refine", "--resume", out, "--steps", "9")
    assert done.returncode == 3
    assert "--steps changed from None to 9" in done.stderr
    card = json.loads((model / "card.json").read_text())
    (model / "card.json").write_text(json.dumps({**card, "notes": ["touched"]}))
    done = cli("refine", "--resume", out)
    assert done.returncode == 3
    assert "the model's files changed" in done.stderr
    done = cli("refine", "--resume", tmp_path)
    assert done.returncode == 4
    assert "not a run" in done.stderr


@pytest.fixture
def cheap(tmp_path):
    return ["--model", "ring", "--num", "8", "--outdir", str(tmp_path / "out")]


BAD = {
    "unknown model": (["--model", "fashoin32"], 3, "Did you mean 'fashion32"),
    "unknown strategy": (["--strategy", "ifgms"], 3, "Did you mean 'ifgsm'"),
    "unknown recipe": (["--recipe", "atuo"], 3, "Did you mean 'auto'"),
    "unknown strategy option": (["--option", "momentum=3"], 3, "unknown option 'momentum'"),
    "option without value": (["--option", "mu"], 2, "KEY=VALUE"),
    "bad seeds": (["--seeds", "9-5"], 2, "runs backwards"),
    "seeds twice": (["--seeds", "1,1"], 2, "named twice"),
    "two ways to start": (["--seeds", "1", "--num", "3"], 2, "--seeds and --num both"),
    "no rows": (["--num", "0"], 2, "--num is at least 1"),
    "negative steps": (["--steps", "-1"], 2, "steps is a whole number from 0 up"),
    "steps as words": (["--steps", "many"], 2, "many"),
    "negative radius": (["--eps", "-0.1"], 2, "eps must be above 0"),
    "a step that is no number": (["--step-size", "big"], 2, "cannot read 'big' as a number"),
    "chunk of zero": (["--chunk", "0"], 2, "--chunk is at least 1"),
    "unknown norm": (["--norm", "1"], 2, "1"),
    "unknown option": (["--epsilon", "1"], 2, "--epsilon"),
    "unknown device": (["--device", "tpu9"], 2, "tpu9"),
    "absent device": (["--device", "cuda:7"], 7, "no device 'cuda:7'"),
    "classes for a pair without": (["--class", "3"], 3, "no classes"),
    "unknown space": (["--space", "w"], 3, "no space 'w'"),
    "no such latents": (["--latents", "/nowhere/z.npz"], 4, "no such file"),
    "no such folder": (["--model", "/nowhere/pair"], 4, "no such file or folder"),
    "a range upside down": (["--range", "1,-1"], 2, "--range"),
    "a prior that is none": (["--prior", "cauchy"], 2, "unknown prior"),
    "a grid that is none": (["--grid", "0x3"], 2, "--grid"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_with_its_status_and_writes_nothing(name, tmp_path, capsys):
    args, status, text = BAD[name]
    base = [] if any(a in args for a in ("--num", "--seeds", "--latents")) else ["--num", "8"]
    model = [] if "--model" in args else ["--model", "ring"]
    out = tmp_path / "out"
    assert run(["refine", *model, *base, *args, "--outdir", str(out)]) == status
    err = capsys.readouterr().err
    line = [x for x in err.splitlines() if x.startswith("latentshift: error: ")]
    assert len(line) == 1, err
    assert text in line[0]
    assert "Traceback" not in err
    assert not out.exists() or not any(out.iterdir())


def test_latents_that_do_not_fit(tmp_path, capsys):
    for array, status, text in (
        (np.zeros((4, 3), np.float32), 3, "takes (rows, 2)"),
        (np.zeros((0, 2), np.float32), 3, "takes (rows, 2)"),
        (np.full((4, 2), np.nan, np.float32), 8, "NaN or infinite"),
        (np.zeros((4, 2), np.int64), 3, "not floating point"),
    ):
        np.save(tmp_path / "z.npy", array)
        args = ["refine", "--model", "ring", "--latents", str(tmp_path / "z.npy"), "--outdir", str(tmp_path / "out")]
        assert run(args) == status
        assert text in capsys.readouterr().err
    np.savez(tmp_path / "w.npz", z=np.zeros((4, 2), np.float32), space=np.array("w"))
    assert run(["refine", "--model", "ring", "--latents", str(tmp_path / "w.npz"), "--outdir", str(tmp_path / "out")]) == 3
    np.savez(tmp_path / "o.npz", z=np.array([{"a": 1}], dtype=object))
    assert run(["refine", "--model", "ring", "--latents", str(tmp_path / "o.npz"), "--outdir", str(tmp_path / "out")]) == 4


def test_output_folders_that_cannot_take_a_run(cheap, tmp_path, capsys):
    assert run(["refine", *cheap, "--quiet"]) == 0
    before = digests(tmp_path / "out")
    assert run(["refine", *cheap]) == 6
    assert "holds another run" in capsys.readouterr().err
    assert digests(tmp_path / "out") == before
    assert run(["refine", *cheap, "--overwrite", "--steps", "2", "--quiet"]) == 0
    assert digests(tmp_path / "out") != before
    (tmp_path / "file").write_text("x")
    assert run(["refine", "--model", "ring", "--num", "8", "--outdir", str(tmp_path / "file")]) == 6
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    assert run(["refine", "--model", "ring", "--num", "8", "--outdir", str(tmp_path / "mine")]) == 6
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    assert run(["refine", "--model", "ring", "--num", "8", "--outdir", "/proc/nothing/here"]) == 6


def test_overwriting_leaves_nothing_of_the_old_run(tmp_path):
    out = tmp_path / "out"
    args = ["refine", "--strategy", "ifgsm", "--steps", "2", "--quiet", "--outdir", str(out)]
    assert run([*args, "--num", "3", "--save-before", "--gif"]) == 0
    assert (out / "path").is_dir()
    assert run([*args, "--num", "2", "--overwrite"]) == 0
    left = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    fixed = {"grid.png", "latents.npz", "report.html", "run.json", "samples.jsonl", "thumbs.npz"}
    assert left == fixed | {"seed0000.png", "seed0001.png"}


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/bin/mount"), reason="needs to mount a small disk")
def test_a_full_disk_keeps_what_is_finished(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        done = cli("refine", "--seeds", "0-199", "--steps", "1", "--chunk", "8", "--outdir", disk / "out")
        assert done.returncode == 6, done.stderr
        assert "no space left" in done.stderr.splitlines()[-1]
        assert "--resume" in done.stderr.splitlines()[-1]
        assert not list((disk / "out").rglob("*.part"))
        parts = list((disk / "out" / "parts").glob("*.npz"))
        assert parts, "finished chunks are gone"
        subprocess.run(["mount", "-o", "remount,size=30m", str(disk)], check=True)
        again = cli("refine", "--resume", disk / "out", "--quiet")
        assert again.returncode == 0, again.stderr
        assert len((disk / "out" / "samples.jsonl").read_text().splitlines()) == 200
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_dry_run_writes_nothing_and_counts_exactly(tmp_path, capsys):
    out = tmp_path / "out"
    args = [
        "refine",
        "--model",
        "ring",
        "--num",
        "40",
        "--strategy",
        "ifgsm",
        "--steps",
        "7",
        "--dry-run",
        "--json",
        "--outdir",
        str(out),
    ]
    assert run(args) == 0
    plan = json.loads(capsys.readouterr().out)
    assert not out.exists()
    assert plan["samples"] == 40
    assert plan["cost_per_sample"]["g_backward"] == 7
    assert plan["cost_per_sample"]["exact"] is True


def test_json_is_the_only_thing_on_stdout(cheap, capsys):
    assert run(["refine", *cheap, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["rows"] == 8
    assert run(["refine", "--model", "nonsense", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["status"] == 3


def test_config_and_environment(tmp_path, monkeypatch, capsys):
    config = tmp_path / "run.toml"
    config.write_text('model = "ring"\nnum = 24\nsteps = 3\n[option]\nsupport = "free"\n'.replace("[option]", "[more]"))
    out = tmp_path / "out"
    assert run(["refine", "--config", str(config), "--num", "8", "--json", "--outdir", str(out)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["rows"], record["recipe"]["options"]["steps"]) == (8, 3)
    assert record["recipe"]["options"]["support"] == "free"
    monkeypatch.setenv("LATENTSHIFT_REFINE_STEPS", "5")
    assert run(["refine", "--model", "ring", "--num", "8", "--json", "--outdir", str(tmp_path / "env")]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["options"]["steps"] == 5
    config.write_text("stpes = 3\n")
    assert run(["refine", "--config", str(config)]) == 3
    assert "Did you mean 'steps'" in capsys.readouterr().err
    config.write_text("steps = = 3\n")
    assert run(["refine", "--config", str(config)]) == 4


def test_a_recipe_of_a_file(tmp_path, capsys):
    assert run(["recipes", "advlatgan-z/toy", "--toml"]) == 0
    path = tmp_path / "mine.toml"
    path.write_text(capsys.readouterr().out.replace("steps = 8000", "steps = 5"))
    assert (
        run(["refine", "--model", "ring", "--num", "8", "--recipe", str(path), "--json", "--outdir", str(tmp_path / "out")])
        == 0
    )
    options = json.loads(capsys.readouterr().out)["recipe"]["options"]
    assert options["steps"] == 5
    assert options["step_size"] == 0.003
    assert options["eps"] is None


def test_conditional_pairs(tmp_path, reference, capsys):
    folder = reference("reference", "pairs", "mnist28-cond-wgangp")
    args = ["refine", "--model", str(folder), "--num", "16", "--steps", "1"]
    assert run([*args, "--class", "3", "--class", "7", "--quiet", "--outdir", str(tmp_path / "a")]) == 0
    rows = [json.loads(x) for x in (tmp_path / "a" / "samples.jsonl").read_text().splitlines()]
    assert [r["label"] for r in rows] == [3, 7] * 8
    assert run([*args, "--outdir", str(tmp_path / "b")]) == 0
    assert "drawn from its seed" in capsys.readouterr().err
    assert run([*args, "--class", "10", "--outdir", str(tmp_path / "c")]) == 3
    assert "classes 0 to 9" in capsys.readouterr().err


def test_options_of_the_critic(tmp_path, reference, capsys):
    folder = reference("reference", "pairs", "broken-inverted-labels")
    base = ["refine", "--model", str(folder), "--num", "8", "--strategy", "ifgsm", "--steps", "2", "--json"]
    assert run([*base, "--outdir", str(tmp_path / "a")]) == 0
    low = json.loads(capsys.readouterr().out)
    assert run([*base, "--critic-sign", "high", "--outdir", str(tmp_path / "b")]) == 0
    high = json.loads(capsys.readouterr().out)
    assert low["score_before"] == pytest.approx(-high["score_before"])


def test_score_ranks(tmp_path, capsys):
    assert run(["score", "--seeds", "0-15", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    scores = [r["score"] for r in document["samples"]]
    assert scores == sorted(scores, reverse=True)
    assert sorted(r["seed"] for r in document["samples"]) == list(range(16))
    assert (
        run(["score", "--seeds", "0-15", "--out", str(tmp_path / "s.csv"), "--grid", str(tmp_path / "g.png"), "--quiet"]) == 0
    )
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[0] == "rank,name,seed,label,score"
    assert len(lines) == 17
    with Image.open(tmp_path / "g.png") as picture:
        assert picture.width > 400


def test_a_closed_pipe_ends_quietly():
    command = f"{sys.executable} -m latentshift score --num 64 | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, env=ENV)
    assert done.stdout.startswith("rank,")
    assert "Traceback" not in done.stderr
