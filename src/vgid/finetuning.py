"""Fine-tuning: train a model that knows a dataset, or a reference that never saw some of its rows."""

from __future__ import annotations

from pathlib import Path

from vgid import processes
from vgid.config import RunConfig, resolve
from vgid.data.sources import Rows, rows_of
from vgid.errors import ConfigError
from vgid.models.loading import LoadedModel
from vgid.progress import Stages, stages_or_own
from vgid.run_folder import check_output, output_folder
from vgid.training.fit import Fitted
from vgid.unlearning import left_to_go_on, load_for, train_and_export

FINE_TUNING = ("finetune", "retrain")
"""Methods that train on retain rows alone, so that they need nothing to forget; the first is the default."""


def finetune(
    model: str | Path | LoadedModel,
    rows: Rows,
    config: RunConfig | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    stages: Stages | None = None,
) -> Fitted:
    """Fine-tune a model on the recorded answers of rows; with `out`, write adapter and merged model.

    Args:
        model: folder or hub id, or a loaded model, which is changed in place.
        rows: rows to learn: a file or folder, a dataset, dictionaries, or examples.
        config: configuration from `vgid.resolve(method="finetune")`, which is the default; `adapter: null` trains all parameters.
        out: folder to write to; None keeps the result in memory.
        resume: go on from the checkpoint in `out`; without one, start from the beginning.
        overwrite: replace what an earlier run left in `out`.
        stages: shows and times what is done; None shows progress bars.

    Returns:
        The trained model (`loaded`), loss curves, and why training ended.

    Raises:
        ConfigError: the configuration has another method.
        DataError: rows are bad, or there are none.
        ModelError: the model cannot be loaded.
        OutputError: `out` holds something already, or cannot be written.
        RunError: the loss stops being finite, memory does not suffice, or the checkpoint is of another run.
        StoppedError: a signal asked the run to stop; it can be resumed.
    """
    config = config or resolve(method=FINE_TUNING[0])
    if config.method.name not in FINE_TUNING:
        raise ConfigError(
            "fine-tuning has its own method",
            expected=f"method {FINE_TUNING[0]}",
            got=config.method.name,
            fix="call vgid.unlearn for others",
        )
    folder = Path(out) if out is not None else None
    first = processes.launched_first()
    if folder is not None and first:
        check_output(folder, overwrite, resume, inputs=[model, rows])
    examples = rows_of(rows)
    processes.start()
    loaded = load_for(model, config)
    with (
        output_folder(folder if first else None, keep=resume, goes_on=lambda: left_to_go_on(folder)),
        stages_or_own(stages, quiet=not first) as shown,
        shown("Fine-tuning", "finetune") as tick,
    ):
        return train_and_export(loaded, [], examples, config, out=folder, progress=tick, resume=resume)
