"""Writes checkpoints during training, and resumes from one."""

from __future__ import annotations

import logging
import signal
from typing import Any

from transformers import TrainerCallback

from vgid import processes
from vgid.errors import StoppedError
from vgid.training.checkpointing import Checkpoint, Checkpoints
from vgid.training.signals import StopRequest
from vgid.training.state import Evaluations, capture, put_back

log = logging.getLogger("vgid")


class CheckpointCallback(TrainerCallback):
    """Writes checkpoints. It runs after all other callbacks, so that a checkpoint holds what they did at its step.

    Args:
        trainer: the trainer, its model and optimizer.
        checkpoints: the folder to write to.
        every: steps between two checkpoints; 0 writes them only at a signal and at the end.
        request: notes a signal that asks the run to stop.
        validation: early stopping, whose state is kept too.
        found: the checkpoint to resume from.
    """

    def __init__(
        self,
        trainer: Any,
        checkpoints: Checkpoints,
        every: int,
        request: StopRequest,
        validation: Evaluations | None,
        found: Checkpoint | None,
    ) -> None:
        self.trainer, self.checkpoints, self.every, self.request = trainer, checkpoints, every, request
        self.validation, self.found = validation, found

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Go on from what was found."""
        if self.found:
            put_back(self.trainer, self.validation, self.found)
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
        return max(processes.exchange(self.request.signal or 0))

    def _write(self, *, done: bool) -> None:
        checkpoint = capture(self.trainer, self.validation, done=done)
        if processes.rank() == 0:
            self.checkpoints.write(checkpoint)

    def _stop(self, number: int) -> None:
        raise StoppedError(
            f"stopped by {signal.Signals(number).name} at step {self.trainer.state.global_step} of {self.trainer.state.max_steps}",
            where=self.checkpoints.file,
            fix="the same command with --resume goes on from here (in Python: resume=True)",
            number=number,
        )
