"""Who may import whom (the house's arrows), read from the source."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

#: rooms from the bottom up; a room may import its own level and those below
LEVELS = [
    {"errors", "noise", "lazy", "calibration", "seeds", "mersenne"},
    {"operations"},
    {"space", "layers", "hidden"},
    {"model", "objective"},
    {"landscape"},
    {"strategies"},
    {"engine"},
    {"recipe", "budget", "registry", "files", "critics", "head"},
    {"sampler", "shards"},
    {"metrics", "train", "bench"},
    {"report", "doctor"},
    {"commands", "__main__"},
    {"testing"},
]
LEVEL = {room: i for i, rooms in enumerate(LEVELS) for room in rooms}


def room_of(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT / "latentshift").parts
    return parts[0].removesuffix(".py")


def imported(path: pathlib.Path) -> list[tuple[str, bool, int]]:
    """Return (module, at top level, line) of every import of the package itself."""
    tree = ast.parse(path.read_text("utf-8"))
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    typing = {
        id(n)
        for i in ast.walk(tree)
        if isinstance(i, ast.If) and getattr(i.test, "id", "") == "TYPE_CHECKING"
        for n in ast.walk(i)
    }
    package = ("latentshift", *path.relative_to(ROOT / "latentshift").parts[:-1])
    found = []
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                names = [".".join((*base, node.module))] if node.module else [".".join((*base, a.name)) for a in node.names]
            else:
                names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        found += [(n, id(node) not in inside, node.lineno) for n in names]
    return found


FILES = sorted((ROOT / "latentshift").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_point_down(path):
    room = room_of(path)
    if room == "__init__":
        return
    for name, at_top, line in imported(path):
        parts = name.split(".")
        assert parts[0] != "latentshift_plugins", f"{path}:{line} imports a plug-in: only entry points may"
        if parts[0] != "latentshift" or len(parts) < 2:
            continue
        other = parts[1]
        if other not in LEVEL or not at_top:
            continue  # `__version__`, or the lazy upward imports inside a function
        assert LEVEL[other] <= LEVEL[room], f"{path.relative_to(ROOT)}:{line}: {room} imports {other}, which is above it"


def test_every_room_has_a_level():
    rooms = {room_of(p) for p in FILES} - {"__init__"}
    assert rooms <= set(LEVEL), f"rooms without a place in the house: {rooms - set(LEVEL)}"


def test_strategies_know_no_file_or_device():
    for path in (ROOT / "latentshift" / "strategies").glob("*.py"):
        text = path.read_text("utf-8")
        for word in ("cuda", "Path(", "open(", "import os", "from ..engine", "from ..files"):
            assert word not in text, f"{path.name} mentions {word}"


def test_plugins_import_only_the_lower_rooms():
    allowed = {"errors", "space", "layers", "model", "files", "lazy", "noise", "registry"}
    for path in (ROOT / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("latentshift."):
                assert node.module.split(".")[1] in allowed, f"{path}: imports {node.module}"
