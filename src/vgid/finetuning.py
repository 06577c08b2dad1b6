"""Fine-tuning: train a model that knows a dataset, or the retain-only reference, which never saw some of its rows."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vgid import processes
from vgid.artifacts import write_json_atomic, write_text_atomic
from vgid.checks.knowledge import KNOWN_ACCURACY, KNOWN_PROBABILITY
from vgid.checks.preflight import LEARNED, Preflight, as_json, check_run
from vgid.checks.screen import screen
from vgid.config import RunConfig, resolve
from vgid.data.example import Example
from vgid.data.sources import Rows, leave_out, rows_of
from vgid.errors import ConfigError, DataError, OutputError
from vgid.evaluation.evaluate import SplitResult, evaluate
from vgid.model_card import figures_of, write_card
from vgid.models.loading import LoadedModel
from vgid.progress import Stages, stages_or_own
from vgid.report.finetuning import render_finetuning
from vgid.results import build_results
from vgid.run_folder import output_folder
from vgid.training.trackers import check_trackers
from vgid.unlearning import (
    EXAMINED,
    EXPORTS,
    Trained,
    begin,
    completed,
    curves_in,
    forget_checkpoint,
    left_to_go_on,
    load_for,
    reading_options,
    row_digests,
    sampled,
    train_and_export,
)

FINE_TUNING = ("finetune", "retrain")
"""Methods that train on retain rows alone, so that they need nothing to forget; the first is the default."""
LEFT_OUT = "left_out"
"""Split of the results for rows that were left out, beside `LEARNED` for those that were trained on."""

log = logging.getLogger("vgid")


@dataclass(frozen=True)
class FineTuned(Trained):
    """What `finetune` returns.

    Attributes:
        results: the results object as it is written to `results.json` (schema `vgid.results/1`), with `curves` and `rows_trained`.
        scores: model (`base`, `finetuned`) to split (`learned`, `left_out`) to figures in [0, 1]; empty with `max_rows=0`.
        curves: part of the loss (`retain`), recall (`recall learned`, `recall left out`) and drift from the base, to points (step, value).
        out: folder of the run; None where nothing was written.
        model: the fine-tuned model with its processor.
    """

    @property
    def knows(self) -> bool | None:
        """Whether the model knows what it learned, by the measure of the preflight; None where it was not asked."""
        found = self.results["splits"].get(LEARNED, {}).get("finetuned")
        return None if found is None else found["accuracy"] >= KNOWN_ACCURACY or found["probability"] >= KNOWN_PROBABILITY


def finetune(
    model: str | Path | LoadedModel,
    rows: Rows | Sequence[str | Path],
    config: RunConfig | None = None,
    *,
    without: Rows | None = None,
    out: str | Path | None = None,
    max_rows: int | None = None,
    skip_bad_rows: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    stages: Stages | None = None,
) -> FineTuned:
    """Fine-tune a model on the recorded answers of rows, after a preflight: all of them, or all without some.

    Stage 1 of an unlearning experiment makes the model that knows from all rows, and the retain-only reference from the same base, by the
    same settings and the same seed, `without` the forget rows. With `out`, adapter and merged model, `results.json` and `report.html` are
    written; the written model is verified as after `vgid.unlearn`.

    Args:
        model: folder or hub id, or a loaded model, which is changed in place.
        rows: rows to learn: a file or folder, several of them, a dataset, dictionaries, or examples.
        config: configuration from `vgid.resolve(method="finetune")`, which is the default; `adapter: null` trains all parameters.
        without: rows that are left out: whatever asks the same question about the same pictures. They are asked too, as a control.
        out: folder to write to; None keeps the result in memory.
        max_rows: rows of each set to ask before and after, at most; 0 for none. None takes 200.
        skip_bad_rows: leave bad rows out, with a warning that lists them, in place of an error.
        resume: go on from the checkpoint in `out`; without one, start from the beginning.
        overwrite: replace what an earlier run left in `out`.
        stages: shows and times what is done; None shows progress bars.

    Returns:
        The trained model, figures before and after, loss, recall and drift over steps, and the results object.

    Raises:
        ConfigError: the configuration has another method.
        DataError: rows are bad, there are none, none is left, or none of the rows to leave out is among them.
        ModelError: the model cannot be loaded, or a part of it that is to be trained gets no gradient.
        OutputError: `out` holds something already, or another run than the one to resume, or cannot be written.
        RunError: the loss stops being finite, memory does not suffice, or the written model does not answer as the trained one.
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
    first = begin(config, folder, overwrite=overwrite, resume=resume, inputs=[model, rows, without])
    learned, left_out = read_training(rows, without, config, skip_bad_rows=skip_bad_rows)
    if resume and folder is not None and (done := completed(folder, model, config, {"forget": left_out, "retain": learned})):
        if not isinstance(done.get("curves"), dict):
            raise OutputError("results.json is not that of a fine-tuning", where=folder, got="no curves", fix="choose another --out")
        log.info("this run is complete; there is nothing to resume")
        return FineTuned(done, {}, curves_in(done), folder)
    digests = row_digests({"forget": left_out, "retain": learned}, secrets.token_hex(16))
    splits = sampled({LEARNED: learned, LEFT_OUT: left_out}, EXAMINED if max_rows is None else max_rows, config.seed)
    scores: dict[str, Mapping[str, SplitResult]] = {}
    with stages_or_own(stages, quiet=not first) as shown:
        loaded = load_for(model, config)
        with shown("Preflight", "preflight"):
            found = check_run(loaded, [], learned, config)
        if first:
            shown.show(screen(found))
        found.raise_errors()
        with output_folder(folder if first else None, keep=resume, goes_on=lambda: left_to_go_on(folder)):
            if splits:
                with shown("Examining the base model", "evaluate") as tick:
                    scores["base"] = evaluate(loaded, splits, seed=config.seed, on_progress=tick)
            with shown("Fine-tuning", "finetune") as tick:
                fitted = train_and_export(
                    loaded, [], learned, config, held_out=left_out, out=folder, progress=tick, resume=resume, keep_checkpoint=True
                )
            if splits and (first or processes.is_sharded(fitted.loaded.model)):
                with shown("Examining the fine-tuned model", "evaluate") as tick:
                    scores["finetuned"] = evaluate(fitted.loaded, splits, seed=config.seed, on_progress=tick)
            counts = {LEARNED: len(learned), LEFT_OUT: len(left_out)}
            results = build_results(
                model=loaded.path,
                evaluated=scores,
                config=config,
                seed=config.seed,
                seconds=shown.seconds,
                training=fitted.stopped,
                automatic=dict(fitted.automatic),
                preflight=as_json(found, texts=False),
                curves={name: [list(point) for point in curve] for name, curve in fitted.curves.items()},
                rows_trained=counts,
                rows=digests,
            )
            if folder is not None and first:
                for export in (folder / name for name in EXPORTS):
                    if export.is_dir():
                        write_card(export, loaded.path, config.method.name, figures_of(results["splits"]), rows=counts, after="finetuned")
                write_text_atomic(folder / "report.html", render_finetuning(results))
                write_json_atomic(folder / "results.json", results)
                forget_checkpoint(folder)
    return FineTuned(results, scores, fitted.curves, folder, fitted)


def preflight(
    model: str | Path | LoadedModel,
    rows: Rows | Sequence[str | Path],
    config: RunConfig | None = None,
    *,
    without: Rows | None = None,
    skip_bad_rows: bool = False,
    stages: Stages | None = None,
) -> Preflight:
    """Look at model, rows and settings before a fine-tuning: what fits, and what is trained. Nothing is written.

    Args:
        model: folder or hub id, or a loaded model, which is left as it was.
        rows: as `finetune` takes them.
        config: configuration from `vgid.resolve(method="finetune")`, which is the default.
        without: rows that are left out.
        skip_bad_rows: leave bad rows out, with a warning that lists them, in place of an error.
        stages: shows and times what is done; None shows progress bars.

    Returns:
        All that was found; `errors` stop a run, `warnings` do not.

    Raises:
        VgidError: as `finetune` says.
    """
    config = config or resolve(method=FINE_TUNING[0])
    check_trackers(config.training.report_to)
    learned, _ = read_training(rows, without, config, skip_bad_rows=skip_bad_rows)
    with stages_or_own(stages):
        return check_run(load_for(model, config), [], learned, config)


def read_training(
    rows: Rows | Sequence[str | Path], without: Rows | None, config: RunConfig, *, skip_bad_rows: bool = False
) -> tuple[list[Example], list[Example]]:
    """Read the rows to learn, and take out those to leave out.

    Args:
        rows: as `finetune` takes them.
        without: rows to leave out; None for none.
        config: `data` says how rows are read.
        skip_bad_rows: leave bad rows out, with a warning that lists them.

    Returns:
        Rows to learn, and those of the same data that are left out.

    Raises:
        DataError: rows are bad, there are none, none is left, or none of the rows to leave out is among them.
    """
    reading = reading_options(config, skip_bad_rows)
    if isinstance(rows, Sequence) and not isinstance(rows, str) and rows and all(isinstance(each, str | Path) for each in rows):
        found = [row for each in rows for row in rows_of(each, name="learned", **reading)]
        first: dict[str, Example] = {}
        for row in found:
            if first.setdefault(row.id, row) is not row:
                raise DataError(
                    "id used in two files", where=row.where, got=f"also at {first[row.id].where}", fix="rename one of the files"
                )
    else:
        found = rows_of(rows, name="learned", **reading)  # type: ignore[arg-type]
    if not found:
        raise DataError("there is nothing to learn", expected="at least one row", got="none", fix="check the data")
    if without is None:
        return found, []
    learned, left_out = leave_out(found, rows_of(without, name="without", need_answers=False, **reading))
    if not learned:
        raise DataError(
            "no rows are left to learn", expected="data with more than the rows that are left out", got="none", fix="check both"
        )
    subjects = {row.subject for row in left_out if row.subject}
    if more := sum(row.subject in subjects for row in learned):
        log.warning("%d rows that stay are about subjects of rows that are left out", more)
    return learned, left_out
