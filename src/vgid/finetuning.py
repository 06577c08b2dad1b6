"""Fine-tuning: how a model comes to know a data set, and how one that never saw some rows is made to compare with."""

from __future__ import annotations

from pathlib import Path

from vgid.artifacts import check_output, prepare_output
from vgid.config import RunConfig, resolve
from vgid.data.sources import Rows, rows_of
from vgid.errors import ConfigError
from vgid.models.loading import LoadedModel, load_model
from vgid.progress import Stages, stages_or_own
from vgid.training.fit import Fitted
from vgid.unlearning import train_and_export

METHOD = "finetune"


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
        rows: what to learn: a file or folder, a dataset, dictionaries, or examples.
        config: settings from `vgid.resolve(method="finetune")`, which are the default; `adapter: null` trains all parameters.
        out: folder to write to; None keeps the result in memory.
        resume: go on from the checkpoint in `out`.
        overwrite: replace what an earlier run left in `out`.
        stages: shows and times what is done; None shows progress bars.

    Returns:
        The trained model (`.loaded`), loss curves, and why training ended.

    Raises:
        ConfigError: the configuration is of another method.
        DataError: rows are bad.
        VgidError: as `vgid.unlearn` says.
    """
    config = config or resolve(method=METHOD)
    if config.method.name not in (METHOD, "retrain"):
        raise ConfigError("fine-tuning has a method of its own", expected=f"method {METHOD}", got=config.method.name, fix="use unlearn")
    folder = Path(out) if out is not None else None
    if folder is not None:
        check_output(folder, overwrite, resume)
    examples = rows_of(rows)
    loaded = model if isinstance(model, LoadedModel) else load_model(model, quantise=config.adapter.quantise if config.adapter else None)
    if folder is not None:
        prepare_output(folder, keep=resume)
    with stages_or_own(stages) as shown, shown("Fine-tuning", "finetune") as tick:
        return train_and_export(loaded, [], examples, config, out=folder, progress=tick, resume=resume)
