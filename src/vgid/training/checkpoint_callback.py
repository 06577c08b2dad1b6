"""Writes checkpoints while a run trains, and takes one up where it starts."""

from __future__ import annotations

import logging
import signal
from typing import Any

from transformers import TrainerCallback

from vgid import processes
from vgid.errors import StoppedError
from vgid.training.checkpointing import Checkpoint, Checkpoints
from vgid.training.signals import Asked
from vgid.training.state import Looks, capture, put_back

log = logging.getLogger("vgid")


class Saver(TrainerCallback):
    """Comes after all other callbacks, so that a checkpoint holds what they did at its step.

    Args:
        trainer: whose state is kept.
        checkpoints: where.
        every: steps between two of them; 0 writes them only at a signal and at the end.
        asked: tells of a signal.
        looks: early stopping.
        found: the checkpoint to go on from.
    """

    def __init__(
        self, trainer: Any, checkpoints: Checkpoints, every: int, asked: Asked, looks: Looks | None, found: Checkpoint | None
    ) -> None:
        self.trainer, self.checkpoints, self.every, self.asked = trainer, checkpoints, every, asked
        self.looks, self.found = looks, found

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Go on from what was found."""
        if self.found:
            put_back(self.trainer, self.looks, self.found)
            log.info("going on from the checkpoint of step %d", self.found.notes["step"])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write when it is time; at a signal, write and stop."""
        number = self._signal()
        over = control.should_training_stop or state.global_step >= state.max_steps
        if not over and (number or (self.every and state.global_step % self.every == 0)):
            self._write(done=False)
        if number and not over:
            self._stop(number)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """What was trained is kept until the run has written it out."""
        self._write(done=True)
        if number := self._signal():
            self._stop(number)

    def _signal(self) -> int:
        """The signal that any of the processes got; 0 for none."""
        return max(processes.exchange(self.asked.signal or 0))

    def _write(self, *, done: bool) -> None:
        checkpoint = capture(self.trainer, self.looks, done=done)
        if processes.rank() == 0:
            self.checkpoints.write(checkpoint)

    def _stop(self, number: int) -> None:
        raise StoppedError(
            f"stopped by {signal.Signals(number).name} at step {self.trainer.state.global_step} of {self.trainer.state.max_steps}",
            where=self.checkpoints.file,
            fix="the same command with --resume goes on from here (in Python: resume=True)",
            number=number,
        )
