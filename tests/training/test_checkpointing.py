"""A run that stops can go on, and ends as one that never stopped; what stays behind is whole and private."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.worker import FORGET, RETAIN, SETTINGS, train_in_folder
from vgid.config import load_config, resolve
from vgid.data.neutral import NEUTRAL
from vgid.errors import ConfigError, OutputError, RunError, StoppedError
from vgid.methods.vgid.narrow import contrast
from vgid.models.loading import load_model
from vgid.results import SCHEMA
from vgid.run_folder import discard, note, noting, output_folder
from vgid.training.checkpointing import Checkpoint, Checkpoints
from vgid.training.fit import fit
from vgid.unlearning import completed, row_digests

OWN = {"settings": "a", "forget rows": "b", "retain rows": "c", "model": "d"}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stored(folder: Path, value: float = 1.0, **notes: object) -> Checkpoints:
    checkpoints = Checkpoints(folder, OWN, resume=True)
    checkpoints.write(Checkpoint({"weights/w": torch.full((1000,), value)}, {"step": 7, "done": False, **notes}))
    return checkpoints


def test_what_is_written_is_read_back_exactly(tmp_path: Path) -> None:
    checkpoints = stored(tmp_path / "c", 0.1, score=0.1 + 0.2, nothing=None)
    found = checkpoints.read()
    assert found is not None and found.notes == {"step": 7, "done": False, "score": 0.1 + 0.2, "nothing": None, "fingerprint": OWN}
    assert torch.equal(found.below("weights/")["w"], torch.full((1000,), 0.1))
    assert Checkpoints(tmp_path / "c", OWN).read() is None  # a run that does not resume begins anew


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
def test_only_the_owner_can_read_it_and_nothing_else_is_left(tmp_path: Path) -> None:
    checkpoints = stored(tmp_path / "c")
    (tmp_path / "c" / ".unfinished").mkdir()
    (tmp_path / "c" / ".unfinished" / ".tmpXOjvrs").touch()  # left by a process that was killed
    stored(tmp_path / "c", 2.0)
    assert names(tmp_path / "c") == ["state.safetensors"]
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700 and checkpoints.file.stat().st_mode & 0o777 == 0o600


def test_what_safetensors_left_when_it_was_killed_goes_with_the_checkpoint(tmp_path: Path) -> None:
    with output_folder(tmp_path / "run"):
        stored(tmp_path / "run" / "c")
        (tmp_path / "run" / "c" / ".unfinished").mkdir()
        (tmp_path / "run" / "c" / ".unfinished" / ".tmpXOjvrs").touch()
        assert discard(tmp_path / "run" / "c") and not (tmp_path / "run" / "c").exists()
        stored(tmp_path / "run" / "c")
        (tmp_path / "run" / "c" / ".tmpXOjvrs").touch()  # somebody else's
        assert discard(tmp_path / "run" / "c") and names(tmp_path / "run" / "c") == [".tmpXOjvrs"]


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX")
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    import resource

    checkpoints = stored(tmp_path / "c")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # 1000 numbers take twice as much
    try:
        with pytest.raises(OutputError, match=r"(?s)cannot write the checkpoint: .*[Ff]ile too large.*the checkpoint before it is kept"):
            stored(tmp_path / "c", 2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    found = checkpoints.read()
    assert found is not None and found.tensors["weights/w"][0] == 1.0 and names(tmp_path / "c") == ["state.safetensors"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"(?s)cannot write the checkpoint: Not a directory.*there is none before it"):
        stored(tmp_path / "file" / "c")


def test_a_damaged_file_and_one_of_another_kind(tmp_path: Path) -> None:
    checkpoints = stored(tmp_path / "c")
    content = checkpoints.file.read_bytes()
    checkpoints.file.write_bytes(content[:1000])
    with pytest.raises(OutputError, match=r"(?s)the checkpoint cannot be read.*--overwrite"):
        checkpoints.read()
    checkpoints.file.write_bytes(content.replace(b"vgid.checkpoint/2", b"vgid.checkpoint/0"))
    with pytest.raises(OutputError, match=r"(?s)not a checkpoint of this version.*found: vgid.checkpoint/0"):
        checkpoints.read()


def test_a_complete_run_is_known_by_all_of_its_rows(tmp_path: Path) -> None:
    config, sets = load_config(), {"forget": FORGET, "retain": RETAIN, "held_out": RETAIN[:1]}
    results = {"schema": SCHEMA, "model": "m", "config": config.model_dump(mode="json"), "rows": row_digests(sets, "0" * 32)}
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert completed(tmp_path, "m", config, sets) == results
    for name in sets:
        with pytest.raises(OutputError, match=f"found: other {name.replace('_', '-')} rows"):
            completed(tmp_path, "m", config, {**sets, name: FORGET[1:]})
    with pytest.raises(OutputError, match="found: other held-out rows"):
        completed(tmp_path, "m", config, {"forget": FORGET, "retain": RETAIN})


QUICK = [*SETTINGS, "method.answers=[recorded]", "method.adversary.rate=3e-3", "adapter.dropout=0.3"]


class Stop:
    """Sends this process a signal after a step."""

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        self.step, self.number, self.seen = step, number, []

    def __call__(self, done: int, total: int) -> None:
        self.seen.append(done)
        if done == self.step:
            os.kill(os.getpid(), self.number)


def final(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "merged" / "model.safetensors")


ANSWERED = [replace(row, tags=(NEUTRAL,)) for row in RETAIN]
"""Retain rows that count as the base's own answers, so that none are given and updates are narrow."""
NARROW = "method.replay={seen: 0, names: 0, altered: 0, crossed: 0, imagined: 0}"
"""Nothing is replayed, but an adapter's first matrices are set and fixed before training."""


@pytest.mark.parametrize(
    "settings", [["training.schedule=linear", NARROW], ["adapter=null", "training.optimizer=muon", "training.micro_batch=4"]]
)
def test_stopped_twice_by_signals_a_run_ends_as_one_that_never_stopped(
    random_folder: Path, tmp_path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(None, [*QUICK, *settings])
    straight = train_in_folder(load_model(random_folder), FORGET, ANSWERED, config, out=tmp_path / "straight")
    for step, number, name in ((1, signal.SIGINT, "SIGINT"), (3, signal.SIGTERM, "SIGTERM")):
        with pytest.raises(StoppedError, match=rf"(?s)stopped by {name} at step {step} of 4.*--resume goes on from here") as stopped:
            train_in_folder(
                load_model(random_folder), FORGET, ANSWERED, config, out=tmp_path / "out", progress=Stop(step, number), resume=True
            )
        assert stopped.value.exit_code == 128 + number
        # Another machine may find an adapter's first matrices with other signs, which are as good as long as they stay.
        monkeypatch.setattr("vgid.methods.vgid.narrow.contrast", lambda *given: -contrast(*given))
    last = Stop(99)
    again = train_in_folder(load_model(random_folder), FORGET, ANSWERED, config, out=tmp_path / "out", progress=last, resume=True)
    assert last.seen == [4] and again.curves == straight.curves and again.stopped == straight.stopped
    one, two = final(tmp_path / "straight"), final(tmp_path / "out")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert not (tmp_path / "out" / "checkpoint").exists()
    with pytest.raises(OutputError, match="the run is complete, there is nothing to resume"):
        train_in_folder(load_model(random_folder), FORGET, ANSWERED, config, out=tmp_path / "out", resume=True)


KEPT = ["method.redraw=false", "method.retain_loss=kl", "method.hidden_state_weight=0", "method.replay.narrow=false"]
"""What the base says is computed once, and used in every epoch."""


@pytest.mark.parametrize(("words", "stops"), [(KEPT, (2,)), pytest.param(KEPT, (1, 2, 4), marks=pytest.mark.slow), (None, (1, 2, 4))])
def test_what_the_base_said_is_worked_out_as_before_the_stop(
    random_folder: Path, tmp_path: Path, words: list[str] | None, stops: tuple[int, ...]
) -> None:
    # Of what shares a picture's row in a pass, the last bits depend on each other.
    forget, retain = ([replace(row, images=FORGET[1].images) for row in rows if row.images] for rows in (FORGET, RETAIN))
    short = [*(each for each in SETTINGS if not each.startswith("method.")), "training.steps=6"]
    config = load_config(None, [*short, *words, "method.adversary=null"]) if words else resolve(None, short, method="undial")
    train_in_folder(load_model(random_folder), forget, retain, config, out=tmp_path / "straight")
    for step in stops:
        with pytest.raises(StoppedError):
            train_in_folder(load_model(random_folder), forget, retain, config, out=tmp_path / "out", progress=Stop(step), resume=True)
    train_in_folder(load_model(random_folder), forget, retain, config, out=tmp_path / "out", resume=True)
    one, two = final(tmp_path / "straight"), final(tmp_path / "out")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_checkpoint_goes_on_with_its_own_run_only_and_tells_nothing(random_folder: Path, tmp_path: Path) -> None:
    config = load_config(None, [*QUICK, "method.answers=[teacher]"])
    with pytest.raises(StoppedError):
        train_in_folder(load_model(random_folder), FORGET, RETAIN, config, out=tmp_path, progress=Stop(1))
    content = (tmp_path / "checkpoint" / "state.safetensors").read_bytes()
    assert not any(text.encode() in content for row in (*FORGET, *RETAIN) for text in (row.question, row.answer, row.id))
    loaded, elsewhere = load_model(random_folder), load_model(random_folder)
    with torch.no_grad():
        next(elsewhere.model.parameters()).mul_(1.5)
    other = load_config(None, [*QUICK, "method.answers=[teacher]", "seed=1"])
    for changed, rows, settings, found in (
        (loaded, FORGET, other, "other settings"),
        (load_model(random_folder), FORGET[1:], config, "other forget rows"),
        (elsewhere, FORGET, config, "other model"),
    ):
        with pytest.raises(OutputError, match=rf"(?s)the checkpoint was written by another run.*found: {found}\n"):
            train_in_folder(changed, rows, RETAIN, settings, out=tmp_path, resume=True)
    # How a run is carried out may change, where it matters not to what comes of it.
    smaller = load_config(None, [*QUICK, "method.answers=[teacher]", "training.micro_batch=2", "training.checkpoint_every=1"])
    assert train_in_folder(load_model(random_folder), FORGET, RETAIN, smaller, out=tmp_path, resume=True).curves["forget"][-1][0] == 4


def test_a_run_killed_while_it_wrote_its_models_writes_them_again(random_folder: Path, tmp_path: Path) -> None:
    config = load_config(None, QUICK)
    train_in_folder(load_model(random_folder), FORGET, RETAIN, config, out=tmp_path, keep_checkpoint=True)
    whole = final(tmp_path)
    (tmp_path / "merged" / "model.safetensors").unlink()
    with noting(tmp_path):  # as `whole_folder` notes the folder that it fills
        note(tmp_path / ".merged.half", tree=True)
        (tmp_path / ".merged.half").mkdir()
        (tmp_path / ".merged.half" / "config.json").touch()
    nothing = Stop(1)
    train_in_folder(load_model(random_folder), FORGET, RETAIN, config, out=tmp_path, progress=nothing, resume=True)
    assert nothing.seen == [] and all(torch.equal(value, whole[name]) for name, value in final(tmp_path).items())
    assert names(tmp_path) == [".vgid-run", "adapter", "merged"]


def test_without_a_folder_nothing_is_kept_and_signals_are_left_alone(random_folder: Path) -> None:
    handlers = []
    fit(
        load_model(random_folder),
        FORGET,
        RETAIN,
        load_config(None, QUICK),
        progress=lambda *_: handlers.append(signal.getsignal(signal.SIGINT)),
    )
    assert set(handlers) == {signal.getsignal(signal.SIGINT)}
    with pytest.raises(OutputError, match=r"(?s)nothing to resume from.*give `out`"):
        train_in_folder(load_model(random_folder), FORGET, RETAIN, load_config(None, QUICK), resume=True)


def test_deepspeed_that_is_not_there(random_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr("vgid.processes.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"(?s)DeepSpeed is asked for, but not installed.*fsdp2"):
        fit(load_model(random_folder), FORGET, RETAIN, load_config(None, QUICK))


def test_nan_keeps_the_last_good_checkpoint(random_folder: Path, tmp_path: Path) -> None:
    wild = ["training.learning_rate=1e30", "training.max_grad_norm=1e30", "training.checkpoint_every=1", "validation.every=0"]
    with pytest.raises(RunError, match=r"(?s)is nan at step.*rows row-.*the last checkpoint"):
        train_in_folder(load_model(random_folder), FORGET, RETAIN, load_config(None, [*QUICK, *wild]), out=tmp_path)
    tensors = load_file(tmp_path / "checkpoint" / "state.safetensors")
    assert all(value.isfinite().all() for name, value in tensors.items() if name.startswith("weights/"))
    assert names(tmp_path) == [".vgid-run", "checkpoint"]
