"""Trackers get curves, and nothing of the data."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from tests.training.test_trainer import EXAMPLES, Linear, Pull
from vgid.errors import ConfigError
from vgid.settings import TrainingConfig, ValidationConfig
from vgid.training.trackers import check_trackers
from vgid.training.trainer import train
from vgid.training.validation import RecallCurves


class Listener(TrainerCallback):
    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        self.heard.append(dict(logs or {}))


CONFIG = {"steps": 3, "learning_rate": 0.1, "forget_batch": 2, "retain_batch": 1, "warmup_steps": 0}


@pytest.mark.skipif(find_spec("tensorboardX") is None, reason="needs tensorboardX")
def test_curves_are_reported_and_no_row_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "unset again when the test ends")
    del os.environ["TENSORBOARD_LOGGING_DIR"]
    check_trackers(["tensorboard"], tmp_path)
    listener, config = Listener(), TrainingConfig(**CONFIG, report_to=("tensorboard",))  # type: ignore[arg-type]
    model = Linear()
    measured = RecallCurves(model, None, {}, ValidationConfig(every=3), 0)  # type: ignore[arg-type]
    measured.curves = {"recall learned": [(2, 0.5)], "drift learned": [(1, 0.1), (3, 0.25)]}  # at steps of their own
    train(model, Pull(), EXAMPLES, EXAMPLES, config, seed=0, validation=measured, callbacks=[listener])
    assert [heard.get("recall_learned") for heard in listener.heard][:3] == [None, 0.5, None]
    assert [heard.get("drift_learned") for heard in listener.heard][:3] == [None, None, 0.25]
    steps = [heard for heard in listener.heard if "loss" in heard]
    assert len(steps) == 3 and all(heard["loss_forget"] == pytest.approx(heard["loss"], abs=1e-3) for heard in steps)
    (written,) = (tmp_path / "logs").rglob("events.out*")
    content = written.read_bytes()
    assert b"loss_forget" in content and b"drift_learned" in content and not any(row.question.encode() in content for row in EXAMPLES)


def test_nothing_is_reported_unless_asked_for() -> None:
    listener = Listener()
    train(Linear(), Pull(), EXAMPLES, EXAMPLES, TrainingConfig(**CONFIG), seed=0, callbacks=[listener])  # type: ignore[arg-type]
    assert not any("loss" in heard for heard in listener.heard)


@pytest.mark.parametrize(
    ("name", "message"), [("tensorbord", "did you mean 'tensorboard'?"), ("neptune", "the tracker neptune is not installed")]
)
def test_trackers_that_are_not_there(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        check_trackers([name])
