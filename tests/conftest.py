"""Shared by all tests: a small random model with its processor, and pictures."""

import io
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from zlib import crc32

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from vgid.commands import main
from vgid.data.example import Example, ImageRef
from vgid.models.loading import LoadedModel, load_model
from vgid.synthetic.tiny import build_model, build_processor, build_tokenizer

# Tests run side by side in processes; more threads each, or in the commands that they start, would only get in each other's way.
THREADS = max(1, (os.cpu_count() or 2) // 2)
torch.set_num_threads(THREADS)
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))

Vgid = Callable[..., CompletedProcess[str]]
"""The fixture `vgid`."""

SENTENCES = ("Who is this person?", "This is Anna Keller.", "She lives in Oslo.", "Forget what you know.", "I do not know.")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--slow-part 2/5`: of the tests marked slow, only the second of five parts; the tests of each file are dealt out in turn.

    `--write-skipped FILE` writes down which tests are skipped, and `--only-skipped FILE` runs of the quick tests only those.
    """
    parser.addoption("--slow-part", default="1/1", help="part of the slow tests to run, as in 2/5")
    parser.addoption("--write-skipped", type=Path, help="file to write the names of skipped tests to")
    parser.addoption("--only-skipped", type=Path, help="file of another run's skipped tests: no other quick tests are run")


LONGEST = (
    "methods/test_contract.py",
    "training/test_checkpointing.py",
    "requests/test_forget.py",
    "training/test_processes.py",
    "attacks/test_contract.py",
    "test_cli.py",
    "requests/test_canaries.py",
    "models/test_families.py",
    "requests/test_sequence.py",
    "training/test_fit.py",
    "methods/test_vgid.py",
    "auditing/test_audit.py",
)
"""Files whose quick tests take longest: where several processes share the files, they begin with these, so that none is left with one at
the end. In any other order the tests are as good."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow tests of other parts and quick ones that are not asked for, and begin with the longest files."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
    part, parts = map(int, str(config.getoption("--slow-part")).split("/"))
    only: Path | None = config.getoption("--only-skipped")
    skipped = set(only.read_text("utf-8").splitlines()) if only else None

    dealt: Counter[Path] = Counter()

    def asked(item: pytest.Item) -> bool:
        if item.get_closest_marker("slow"):
            dealt[item.path] += 1
            return (dealt[item.path] + crc32(item.path.name.encode())) % parts == part - 1
        return skipped is None or item.nodeid in skipped

    kept = [item for item in items if asked(item)]
    config.hook.pytest_deselected(items=sorted(set(items) - set(kept), key=lambda item: item.nodeid))
    items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write down which tests were skipped, if that is asked for."""
    file: Path | None = config.getoption("--write-skipped")
    if file:
        names = {report.nodeid for report in terminalreporter.stats.get("skipped", [])}
        file.write_text("".join(f"{name}\n" for name in sorted(names)), "utf-8")


def png(seed: int = 0, side: int = 40) -> bytes:
    """A random picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()


def example(number: int = 0, *, image: bool = True, answer: str = "This is Anna Keller.") -> Example:
    """A row with a picture of its own, or without one."""
    images = (ImageRef(data=png(number)),) if image else ()
    question = "Who is this person?" if image else "Where does Anna Keller live, and since when?"
    return Example(id=f"row-{number}", question=question, answer=answer, images=images, subject=f"s{number}")


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first process to need it fills, for all that run tests side by side; none may change what is in it."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, made = root / name, root / f"{name}.made"
    with FileLock(root / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # another process failed in it
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights, of the embedded model's shape."""

    def make(folder: Path) -> None:
        tokenizer = build_tokenizer(SENTENCES * 20)
        build_model(tokenizer).save_pretrained(folder / "model")
        build_processor(tokenizer).save_pretrained(folder / "model")

    return made_once(tmp_path_factory, "random", make) / "model"


@pytest.fixture
def random_model(random_folder: Path) -> LoadedModel:
    """The same, loaded."""
    return load_model(random_folder)


@pytest.fixture
def mixed() -> list[Example]:
    """Rows with and without pictures, of different lengths."""
    return [
        example(0),
        example(1, image=False, answer="She lives in Oslo, and has done so for many years."),
        example(2, answer="I do not know."),
        example(3, image=False, answer="Oslo."),
    ]


@pytest.fixture
def vgid(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Vgid]:
    """`vgid(*words)`: the command line in this process, which saves the seconds that imports take; how it ended and what it wrote.

    What the command line changes of the process is as before afterwards.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setenv("COLUMNS", "200")
    mask = os.umask(0o077)

    def run(*words: object) -> CompletedProcess[str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["vgid", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        return CompletedProcess(sys.argv, int(ended.value.code or 0), said.out, said.err)

    yield run
    os.umask(mask)
    for number, handler in handlers.items():
        signal.signal(number, handler)
