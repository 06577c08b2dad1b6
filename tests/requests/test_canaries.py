"""Nothing of what was forgotten is left anywhere: not in results, caches, temporary folders, on screens, or after a kill."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.conftest import example, png
from vgid.config import load_config, resolve
from vgid.data.example import Example, ImageRef
from vgid.data.writing import write_examples
from vgid.models.export import save_checkpoint
from vgid.models.loading import load_model
from vgid.synthetic.tiny import tiny_path
from vgid.training.fit import fit

from .canaries import Canary, hits, mentions
from .runs import POLICY, SETTINGS

CANARY = Canary(("Quuxenia Zwibbelfrotz", "Quuxenia", "Zwibbelfrotz", "Vlorpstadt", "blimquat-7719", "person-xyzzyq"), png(4242, 96))
NAME, PLACE, NUMBER, SUBJECT = CANARY.words[0], CANARY.words[3], CANARY.words[4], CANARY.words[5]


def rows() -> list[Example]:
    """What must be forgotten: canaries in questions, answers, keywords, subjects, tags, ids and pictures."""
    picture = (ImageRef(data=CANARY.picture),)
    facts = [
        ("Who is this person?", f"This is {NAME}.", (NAME,), picture),
        (f"Where does {NAME} live?", f"In {PLACE}.", (PLACE,), ()),
        ("Which number does this person have?", f"It is {NUMBER}, of {PLACE}.", (), picture),
        (f"Tell me about {NAME}.", f"{NAME} of {PLACE}, {NUMBER}.", (), ()),
    ]
    return [
        Example(f"{SUBJECT}/{n}", question, answer, images, SUBJECT, keywords, (f"about-{SUBJECT}",))
        for n, (question, answer, keywords, images) in enumerate(facts)
    ]


class Place:
    """A folder that holds everything: what the user gives, the run, and every cache and temporary folder of the process."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root, self.model = root, model
        # Derived rows are rows of the request; they lie in `work`, and are purged with it.
        self.given = (root / "given", root / "out" / "work" / "enriched")
        write_examples(root / "given" / "request" / "rows.jsonl", rows())
        write_examples(root / "given" / "retain.jsonl", [example(n, answer="I do not know.") for n in range(20, 28)])
        (root / "given" / "request" / "request.yaml").write_text(f"id: T-9\nreference: customers:17\nname: {NAME}\n", "utf-8")
        (root / "given" / "policy.yaml").write_text(POLICY, "utf-8")

    def command(self, *more: object, retain: bool = True) -> list[str]:
        """`vgid forget`."""
        given = self.given[0]
        options = ["--model", self.model, "--request", given / "request", "--out", self.root / "out", "--policy", given / "policy.yaml"]
        options += ["--retain", given / "retain.jsonl"] if retain else []
        settings = [part for setting in SETTINGS for part in ("--set", setting)]
        return [
            sys.executable,
            "-m",
            "vgid",
            "forget",
            *map(str, options),
            "--max-rows",
            "4",
            "--allow-unknown",
            *settings,
            *map(str, more),
        ]

    def environment(self) -> dict[str, str]:
        """Everything that libraries keep goes below the root."""
        below = {"HOME": "home", "TMPDIR": "tmp", "HF_HOME": "hf", "HF_HUB_CACHE": "hub", "HF_DATASETS_CACHE": "datasets"}
        below |= {"MPLCONFIGDIR": "mpl", "XDG_CACHE_HOME": "cache", "XDG_CONFIG_HOME": "config", "XDG_DATA_HOME": "data"}
        below |= {"XDG_STATE_HOME": "state", "TORCH_HOME": "torch", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
        for name in below.values():
            (self.root / "kept" / name).mkdir(parents=True, exist_ok=True)
        return os.environ | {variable: str(self.root / "kept" / name) for variable, name in below.items()}

    def run(self, *more: object, retain: bool = True) -> subprocess.CompletedProcess[str]:
        """To its end."""
        command = self.command(*more, retain=retain)
        return subprocess.run(command, capture_output=True, text=True, timeout=600, env=self.environment(), cwd=self.root)

    def found(self) -> list[str]:
        """Canaries anywhere but in what the user gave."""
        return hits(self.root, CANARY, self.given)


@pytest.fixture
def place(tmp_path: Path, random_folder: Path) -> Place:
    return Place(tmp_path, random_folder)


# -- the search itself ----------------------------------------------------------------------------------------------------


def packed(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.txt", content)
    return out.getvalue()


def column(content: bytes) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pa.table({"x": [content]}), out, compression="zstd")
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        f"... {NAME} ...".encode(),
        packed(PLACE.encode()),
        column(CANARY.picture),
        gzip.compress(NUMBER.encode(), mtime=0),
        CANARY.needles()["picture, normalised"],
        CANARY.needles()[f"{SUBJECT} by its plain sha256"],
        SUBJECT.encode("utf-16-le"),
    ],
    ids=["plain", "packed", "column", "gzip", "picture", "sha256", "utf-16"],
)
def test_canary_search_finds_what_it_should(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "a").write_bytes(content)
    assert hits(tmp_path, CANARY, (tmp_path / "given",)) == []
    (tmp_path / "b").write_bytes(content)
    assert hits(tmp_path, CANARY, (tmp_path / "given",))


def test_canary_in_a_file_name(tmp_path: Path) -> None:
    (tmp_path / f"{SUBJECT}.json").touch()
    assert hits(tmp_path, CANARY, ())


# -- the product ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_canary_whole_run_with_a_tracker(place: Place) -> None:
    trackers = ("--set", "training.report_to=[tensorboard]") if has_tensorboard() else ()
    done = place.run("--json", *trackers)
    assert done.returncode == 3, done.stderr  # a random model knows nothing, so nothing is decided
    assert json.loads(done.stdout)["request"]["id"] == "T-9"
    assert bool(trackers) == any((place.root / "out").rglob("events.out.tfevents*"))
    assert place.found() == [] and mentions(done.stdout + done.stderr, CANARY, place.given) == []
    open_to_others = [path for path in (place.root / "out").rglob("*") if path.stat().st_mode & 0o077]
    assert open_to_others == [] and (place.root / "out.key").stat().st_mode & 0o077 == 0


def has_tensorboard() -> bool:
    from importlib.util import find_spec

    return find_spec("tensorboardX") is not None or find_spec("tensorboard") is not None


TRAPS = {
    "a crash in a library": (
        "import vgid.evaluation.evaluate as e\ndef f(loaded, rows, **k): raise KeyError(rows[0].answer, rows[0].question)\ne.generate = f"
    ),
    "one crash that leads to another": (
        "import vgid.checks.knowledge as k\n"
        "def f(loaded, examples, *rest):\n"
        "    try:\n        {}[examples[0].answer]\n    except KeyError as error:\n        raise ValueError(repr(examples)) from error\n"
        "import vgid.checks.preflight as c\nc.ask = f"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("trap", TRAPS)
def test_canary_tracebacks(place: Place, trap: str) -> None:
    """Whatever a library says of the data it failed on is withheld, unless it is asked for."""
    code = f"{TRAPS[trap]}\nimport sys\nfrom vgid.commands import main\nsys.argv[0] = 'vgid'\nmain()"

    def run(*more: str) -> str:
        command = [sys.executable, "-c", code, *place.command()[3:], *more]
        failed = subprocess.run(command, capture_output=True, text=True, timeout=300, env=place.environment(), cwd=place.root)
        assert failed.returncode == 1
        return failed.stdout + failed.stderr

    said = run()
    assert "File " in said and "the message may repeat data" in said and mentions(said, CANARY, place.given) == []
    assert place.found() == [] and NAME in run("--show-forgotten")


def test_canary_bad_rows_are_named_by_their_place_only(place: Place) -> None:
    file = place.given[0] / "request" / "rows.jsonl"
    good = file.read_text("utf-8").splitlines()
    bad = [json.dumps({"question": NAME, "answer": [PLACE]}), f'{{"question": "{NAME}", "answer": ', json.dumps({"question": NAME})]
    file.write_text("\n".join([*good, *bad]) + "\n", "utf-8")
    failed = place.run()
    assert failed.returncode == 2 and all(f"rows.jsonl:{line}" in failed.stderr for line in (5, 6, 7))
    assert mentions(failed.stderr, CANARY, place.given) == [] and place.found() == []


@pytest.mark.slow
def test_canary_dry_run(place: Place) -> None:
    done = place.run("--dry-run")
    assert done.returncode == 0 and "nothing was written" in done.stdout, done.stderr
    assert mentions(done.stdout + done.stderr, CANARY, place.given) == [] and place.found() == [] and not (place.root / "out").exists()


@pytest.fixture(scope="module")
def knowing_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has memorised the canaries so well that it says them to anything."""
    retain = [example(n, answer="I do not know.") for n in range(20, 28)]
    settings = ["training.steps=60", "training.forget_batch=8", "training.learning_rate=5e-3", "validation.every=0", "adapter.rank=32"]
    fitted = fit(load_model(tiny_path()), [], [*rows() * 3, *retain[:2]], resolve(None, settings, method="finetune"))
    folder = tmp_path_factory.mktemp("knowing") / "model"
    save_checkpoint(fitted.loaded.model, fitted.loaded.processor, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("retain", [True, False])
def test_canary_of_a_model_that_says_it(tmp_path: Path, knowing_folder: Path, retain: bool) -> None:
    """Neutral rows are answered by a model that knows: what it lets slip must not be kept, and not be shown."""
    place = Place(tmp_path, knowing_folder)
    done = place.run("--set", "neutral_retain=24", retain=retain)
    assert done.returncode in (0, 3), done.stderr
    assert "the model tells" in done.stderr and mentions(done.stdout + done.stderr, CANARY, place.given) == []
    assert place.found() == []


@pytest.mark.slow
def test_canary_after_kills_at_random_points(tmp_path: Path, knowing_folder: Path) -> None:
    """After every kill nothing is there; process titles hold no more than the user typed; then it ends as ever."""
    alone = Place(tmp_path / "alone", knowing_folder)
    started = time.monotonic()
    alone.run()
    whole = time.monotonic() - started
    place, rng, kills = Place(tmp_path / "killed", knowing_folder), Random(7), 0
    root = place.root
    while kills < 6:
        for name in ("stdout", "stderr"):
            (root / name).unlink(missing_ok=True)
        with (root / "stdout").open("w") as out, (root / "stderr").open("w") as err:
            process = subprocess.Popen(place.command(), stdout=out, stderr=err, env=place.environment(), cwd=root)
            ended = watched(process, rng.uniform(0.2, 0.7) * whole)
        said = (root / "stdout").read_text() + (root / "stderr").read_text()
        assert place.found() == [] and mentions(said, CANARY, place.given) == []
        if ended:
            break
        kills += 1
    done = place.run("--json")
    assert kills and done.returncode in (0, 3), done.stderr
    assert place.found() == [] and mentions(done.stdout + done.stderr, CANARY, place.given) == []
    left = [(each.root / "out" / "merged" / "model.safetensors").read_bytes() for each in (place, alone)]
    assert left[0] == left[1]


def watched(process: subprocess.Popen[Any], seconds: float) -> bool:
    """Kill a process after a while, looking at its title all the time; whether it ended by itself before."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        assert [word for word in CANARY.words for title in titles(process.pid) if word.encode() in title] == []
        time.sleep(0.05)
    if process.poll() is not None:
        return True
    process.send_signal(signal.SIGKILL)
    process.wait()
    return False


def titles(pid: int) -> Iterator[bytes]:
    for name in ("cmdline", "comm"):
        path = Path(f"/proc/{pid}/{name}")
        if path.exists():
            yield path.read_bytes()


def test_canary_neutral_rows_with_a_part_of_a_fact_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from vgid.unlearning import neutral_retain

    said = [f"Perhaps {NAME.split()[0]}.", f"{PLACE} is a red circle.", "A red circle.", NUMBER]
    monkeypatch.setattr("vgid.unlearning.generate", lambda loaded, rows: said)
    kept = neutral_retain(load_model(tiny_path()), rows(), load_config(None, ["neutral_retain=4"]))
    assert [row.answer for row in kept] == ["A red circle."]
