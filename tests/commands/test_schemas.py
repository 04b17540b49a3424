"""Everything that `--json` prints, and the files of a run, against the published schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latentshift.commands import run

jsonschema = pytest.importorskip("jsonschema")
SCHEMAS = Path(__file__).parents[2] / "docs/schema"


def check(name: str, value: Any) -> None:
    """Raise where a value does not follow a schema."""
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(value, schema)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    assert run(["refine", "--num", "3", "--quiet", "--outdir", str(out)]) == 0
    return out


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("plan", ["refine", "--num", "3", "--dry-run"]),
        ("score", ["score", "--num", "3"]),
        ("doctor", ["doctor", "--num", "32"]),
        ("list", ["models"]),
        ("list", ["strategies"]),
        ("list", ["critics"]),
        ("list", ["recipes"]),
        ("model", ["models", "fashion32"]),
        ("strategy", ["strategies", "ifgsm"]),
        ("recipe", ["recipes", "auto"]),
        ("recipe", ["recipes", "advlatgan-z/stl10"]),
        ("plugins", ["plugins"]),
        ("fetch", ["fetch", "fashion32"]),
        ("bench", ["bench", "--pairs", "A", "--rows", "8", "--rounds", "1", "--steps", "0", "--shrink", "16"]),
    ],
)
def test_output(schema: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, "--json"]) == 0
    check(schema, json.loads(capsys.readouterr().out))


def test_every_card(capsys: pytest.CaptureFixture[str]) -> None:
    schemas = {"strategies": "strategy", "recipes": "recipe", "critics": "critic"}
    seen = []
    for group, schema in schemas.items():
        assert run([group, "--json"]) == 0
        for row in json.loads(capsys.readouterr().out):
            if row["name"] in ("D", "FOLDER"):  # these two are kinds, not names
                continue
            assert run([group, row["name"], "--json"]) == 0
            check(schema, json.loads(capsys.readouterr().out))
            seen.append(row["name"])
    assert {"ifgsm", "auto"} <= set(seen)


def test_refine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["refine", "--num", "2", "--json", "--outdir", str(tmp_path / "out")]
    assert run(words) == 0
    first = json.loads(capsys.readouterr().out)
    check("refine", first)
    assert all((tmp_path / "out" / name).is_file() for name in first["files"])
    assert run(["refine", "--resume", str(tmp_path / "out"), "--json"]) == 0
    check("refine", json.loads(capsys.readouterr().out))


def test_files_of_a_run(folder: Path) -> None:
    check("run", json.loads((folder / "run.json").read_text()))
    for line in (folder / "samples.jsonl").read_text().splitlines():
        check("sample", json.loads(line))


def test_report_and_inspect(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(folder), "--out", str(tmp_path / "p.html"), "--json"]) == 0
    check("report", json.loads(capsys.readouterr().out))
    from latentshift.files.names import FASHION32

    kinds = {"run": folder, "latents": folder / "latents.npz", "pair folder": FASHION32.folder}
    kinds["safetensors"] = FASHION32.folder / "G.safetensors"
    for kind, path in kinds.items():
        assert run(["inspect", str(path), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        check("inspect", told)
        assert told["kind"] == kind


@pytest.mark.parametrize("words", [["models", "nope"], ["refine", "--num", "0"], ["report", "/nowhere"], ["nope"]])
def test_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status = run([*words, "--json"])
    told = json.loads(capsys.readouterr().out)
    check("error", told)
    assert told["status"] == status > 0


def test_a_schema_refuses_what_is_wrong(folder: Path) -> None:
    record = json.loads((folder / "run.json").read_text())
    for change in ({"status": "fine"}, {"raised": 2}, {"schema": 2}):
        with pytest.raises(jsonschema.ValidationError):
            check("run", record | change)
    del record["ledger"]
    with pytest.raises(jsonschema.ValidationError):
        check("run", record)


def test_every_schema_is_used() -> None:
    text = "".join(p.read_text() for p in Path(__file__).parents[1].rglob("test_*.py"))
    assert [p.stem for p in SCHEMAS.glob("*.json") if f'"{p.stem}"' not in text and f"{p.stem}.json" not in text] == []
