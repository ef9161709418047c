"""The documentation: links lead somewhere, commands parse, and what can run small runs.

Every fenced block of README.md and docs/ has a language. `bash` blocks are run by bash with
functions in place of the programs, which gives the command lines as a user's shell would make them.
Each command's own parser must accept them. The `python` blocks of a page are executed in one
namespace, and its commands are run, with the settings of TINY added, except in blocks below the
comment `<!-- parsed only -->`.
"""

import ast
import configparser
import importlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
import test_floors

ROOT = pathlib.Path(__file__).parent.parent
# In the order in which they are run: later pages use what the commands of earlier ones leave.
PAGES = ["README.md", *(f"docs/{name}.md" for name in (
    "train", "loss", "data", "tokens", "measure", "language_model", "hugging_face", "performance",
    "architecture",
))]  # fmt: skip
STUDIES = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("studies/**/README.md"))
OTHERS = ["CONTRIBUTING.md", "CHANGELOG.md", *STUDIES]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
EXTRAS = SETUP["options.extras_require"]
LANGUAGES = ("bash", "python", "bibtex", "json", "text")
PROGRAMS = ("python", "bash", "pip", "apt-get")

TINY = {
    "--config=encodec": "--config.steps=2 --config.batch_size=2 --config.data.workers=0 "
    "--config.quantizer.warmup_steps=1 --config.quantizer.kmeans_batches=1 "
    "--config.model.n_filters=2 --config.model.dimension=8 --config.discriminator.filters=2 "
    "--config.quantizer.codebook_size=16 --config.evaluate_items=1 --config.evaluate_seconds=1 "
    "--config.optimizer.warmup_steps=1 --config.log_every=1",
    "--config=lm_small": "--config.steps=2 --config.batch_size=2 --config.evaluate_items=2 "
    "--config.data.segment_seconds=1 --config.model.layers=1 --config.model.dim=32 "
    "--config.model.heads=2 --config.model.ffn_dim=32 --config.samples=0 "
    "--config.optimizer.warmup_steps=1 --config.log_every=1",
    "indep_jax.evaluate": "--items=2 --seconds=1",
    "indep_jax.generate": "--seconds=1",
}


class Block(NamedTuple):
    page: str
    line: int  # of its fence
    language: str
    text: str
    run: bool

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    found, fence, before = [], None, ""
    for number, line in enumerate((ROOT / page).read_text().splitlines(), 1):
        if line.startswith("```") and fence is None:
            fence, language, body = number, line[3:], []
            run = before != "<!-- parsed only -->"
        elif line.startswith("```"):
            found.append(Block(page, fence, language, "\n".join(body) + "\n", run))
            fence = None
        elif fence is not None:
            body.append(line)
        before = line.strip() or before
    assert fence is None, f"{page}:{fence}: a block without an end"
    return found


def command_lines(block: Block, folder: pathlib.Path) -> list[list[str]]:
    """The commands of a bash block, with the shell's variables, loops and quotes resolved."""
    calls = folder / "calls"
    calls.write_bytes(b"")
    functions = "".join(
        f'{name}() {{ printf "%s\\0" {name} "$@" >>"$CALLS"; printf "\\1\\0" >>"$CALLS"; }}\n'
        for name in PROGRAMS
    )
    # The studies say in words which music; nothing else may be unset.
    script = f"set -euo pipefail\nPATH=\nMUSIC=folder:music\n{functions}{block.text}"
    done = subprocess.run(
        [shutil.which("bash"), "--noprofile", "-c", script],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"CALLS": str(calls)},
    )
    assert done.returncode == 0, f"{block.where}: {done.stderr}"
    lines = calls.read_text().split("\1\0")
    return [line.split("\0")[:-1] for line in lines[:-1]]


def tiny(argv: list[str]) -> list[str]:
    added = [TINY[key] for key in TINY if any(key in word for word in argv)]
    return [*argv, *" ".join(added).split()]


class Driver:
    """tests/support/run_commands.py."""

    def __init__(self, folder: pathlib.Path):
        self._process = subprocess.Popen(
            [sys.executable, ROOT / "tests/support/run_commands.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
        )

    def __call__(self, argv: list[str], run: bool) -> dict:
        self._process.stdin.write(json.dumps(dict(argv=argv, run=run)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"{argv}: run_commands.py ended, with {self._process.wait()}"
        return json.loads(answer)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the commands find what they name: the checkout's files, and some music."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("configs", "indep_jax", "launch", "studies", "tests", ".ci", "setup.cfg"):
        (folder / name).symlink_to(ROOT / name)
    rng, entries = np.random.default_rng(0), []
    (folder / "music").mkdir()
    for split in ("train", "valid", "test"):
        for number in range(3):
            path = f"{split}{number}.wav"
            soundfile.write(folder / "music" / path, 0.1 * rng.standard_normal(48_000), 16_000)
            entries.append(dict(path=path, split=split, caption=f"noise {number}"))
    (folder / "music/manifest.json").write_text(json.dumps(dict(files=entries)))
    return folder


@pytest.fixture(scope="module")
def driver(folder):
    driver = Driver(folder)
    yield driver
    driver.close()


def check(argv: list[str], driver: Driver, where: str) -> None:
    """Fail for a command line that its program would refuse."""
    program, *arguments = argv
    shown = f"{where}: {' '.join(argv)}"
    if program == "bash":
        script = ROOT / arguments[0]
        assert script.is_file(), f"{shown}: there is no such script"
        subprocess.run(["bash", "-n", script], check=True)
    elif program == "pip":
        for extras in re.findall(r"^\.\[(.*)\]$", "\n".join(arguments), re.MULTILINE):
            missing = set(extras.split(",")) - set(EXTRAS)
            assert not missing, f"{shown}: setup.cfg has no extra {missing}"
    elif arguments[:2] == ["-m", "pytest"]:
        for path in arguments[2:]:
            assert not path.startswith("tests") or (ROOT / path).exists(), f"{shown}: {path}"
    elif program == "python":
        answer = driver(argv, run=False)
        absent = re.search(r"ModuleNotFoundError: No module named '(\w+)'\s*$", answer["output"])
        if absent and any(absent[1] in packages for packages in EXTRAS.values()):
            return  # a script of a package that the default environment does not have
        assert answer["code"] == 0, f"{shown}\n{answer['output']}"
    else:
        assert program == "apt-get" and arguments[0] == "install", shown


@pytest.mark.parametrize("page", [*PAGES, *OTHERS])
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(target)
    assert not wrong


def anchors(file: pathlib.Path) -> list[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_the_readme_is_short():
    assert (ROOT / "README.md").stat().st_size < 8192


def test_every_page_is_tested_and_reached_from_the_readme():
    assert {f"docs/{path.name}" for path in (ROOT / "docs").iterdir()} == set(PAGES[1:])
    readme = (ROOT / "README.md").read_text()
    assert [page for page in PAGES[1:] if f"]({page})" not in readme] == []


def test_the_architecture_page_has_the_tree_and_the_floors_of_the_code():
    page = (ROOT / "docs/architecture.md").read_text()
    folders = {p.parent.name for p in (ROOT / "indep_jax").glob("*/__init__.py")} - {"configs"}
    tree = re.findall(r"^  (\w+)/ ", page, re.MULTILINE)
    assert set(tree) - {"pretrained"} == folders
    floors = re.findall(r"^\| (\d) \| (.*) \|$", page, re.MULTILINE)
    listed = {name: int(floor) for floor, cell in floors for name in re.findall(r"`(\w+)`", cell)}
    assert listed == test_floors.FLOORS | dict(bench=test_floors.COMMANDS)


@pytest.mark.parametrize("page", [*PAGES, *OTHERS])
def test_commands_parse(page, folder, driver):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.where}: a block of {block.language!r}"
        if block.language == "python":
            check_imports(block)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "bash":
            lines = command_lines(block, folder)
            assert lines, f"{block.where}: no command"
            for argv in lines:
                check(argv, driver, block.where)


def check_imports(block: Block) -> None:
    """Fail for an example that is not Python, or imports from this repository what is not there."""
    for node in ast.walk(ast.parse(block.text, filename=block.where)):
        if isinstance(node, ast.ImportFrom) and (ROOT / node.module.split(".")[0]).is_dir():
            for alias in node.names:
                if not hasattr(importlib.import_module(node.module), alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


def test_commands_and_examples_run(folder, driver, monkeypatch):
    monkeypatch.chdir(folder)
    for page in PAGES:
        namespace = {}
        for block in blocks(page):
            if block.run and block.language == "python":
                exec(compile(block.text, block.where, "exec"), namespace)
            elif block.run and block.language == "bash":
                for argv in command_lines(block, folder):
                    if argv[0] == "python":
                        answer = driver(tiny(argv), run=True)
                        assert answer["code"] == 0, f"{block.where}: {argv}\n{answer['output']}"
