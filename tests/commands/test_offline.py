"""`--offline`: every command takes it, nothing is asked of a network, one line and status 5 for what is not in the cache."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click
import pytest

from latentshift.commands import group, run
from latentshift.commands.common import general
from latentshift.files.offline import VARIABLE, is_off

WEB = "https://example.invalid/net.pkl"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and a network that fails the test where it is asked."""

    def refuse(*args: object, **named: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setenv("LATENTSHIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    for name in (VARIABLE, "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)


def test_every_command_takes_it() -> None:
    context = click.Context(group)
    without = [
        name
        for name in group.list_commands(context)
        if not any("--offline" in p.opts for p in group.get_command(context, name).params)  # type: ignore[union-attr]
    ]
    assert without == ["completion"]  # prints a text of the package


@pytest.mark.parametrize(
    "words",
    [
        ["refine", "--model", WEB],
        ["refine", "--model", "stylegan2-afhqcat"],
        ["refine", "--model", "hf://some/gan/net.pkl"],
        ["refine", "--critic", WEB],
        ["score", "--model", WEB],
        ["doctor", "--model", WEB],
        ["critic", "--model", WEB, "--reals", "ring", "--outdir", "critic"],
        ["evaluate", WEB, "fashion32", "--features", "pixels:8"],
        ["evaluate", "fashion32", "digits", "--features", "inception"],
        ["convert", "stylegan2-afhqcat", "folder"],
        ["inspect", "stylegan2-afhqcat"],
        ["inspect", WEB],
        ["fetch", "stylegan2-afhqcat"],
    ],
)
def test_what_is_not_in_the_cache(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, "--offline"]) == 5
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert len(said) == 1
    assert said[0].startswith("latentshift: error: not in the ")
    assert "by hand" in said[0]
    assert not is_off()  # the switch is put back


def test_workers_inherit_it_and_what_is_there_works() -> None:
    seen: list[str | None] = []

    @click.command()
    @general
    def look(**typed: object) -> None:
        seen.append(os.environ.get(VARIABLE))

    look.main(["--offline"], standalone_mode=False)
    look.main([], standalone_mode=False)
    assert seen == ["1", None]
    assert run(["inspect", "ring", "--offline", "--json"]) == 0
