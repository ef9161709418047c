"""Imports only go down, and folders on one floor do not import each other (docs/architecture.md)."""

import ast
import pathlib

PACKAGE = pathlib.Path(__file__).parent.parent / "indep_jax"
FLOORS = dict(
    signal=0,
    support=0,
    codec=1,
    independence=1,
    lm=1,
    text=1,
    data=1,
    report=1,
    dependence=2,
    training=2,
    datasets=2,
    evaluation=3,
    hub=3,
    inference=4,
    tasks=5,
)
COMMANDS = 6  # and bench/


def _imports(path: pathlib.Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _folder(parts):
    return parts[0] if parts[0] in FLOORS else None


def test_every_folder_has_a_floor():
    folders = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert folders == set(FLOORS) | {"bench", "configs"}


def test_imports_go_down():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        here = _folder(path.relative_to(PACKAGE).parts)
        floor = FLOORS.get(here, COMMANDS)
        for name in _imports(path):
            parts = name.split(".")
            if parts[0] in ("launch", "studies", "tests") or "configs" in parts[:2]:
                wrong.append(f"{path.name} imports {name}")
            if parts[0] != "indep_jax" or len(parts) == 1:
                continue
            there = _folder(parts[1:])
            if here is not None and there != here and FLOORS.get(there, COMMANDS) >= floor:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong
