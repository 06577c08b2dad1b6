"""`vgid unlearn` and `vgid preflight` as functions: from a model and rows to a model that forgot, written and examined."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from random import Random
from typing import Any

from vgid import processes
from vgid.artifacts import write_json_atomic
from vgid.checks.preflight import Preflight, as_json, check_run
from vgid.checks.screen import screen
from vgid.config import RunConfig
from vgid.curves import Curves
from vgid.data.example import GUESS, Example, without_guesses
from vgid.data.neutral import mentions, neutral_examples, own_answers, revealing_words
from vgid.data.picture_size import PictureSize, has_one_size
from vgid.data.sources import Rows, check_disjoint, rows_of
from vgid.errors import ConfigError, DataError, OutputError
from vgid.evaluation.evaluate import SplitResult, evaluate
from vgid.evaluation.generation import generate
from vgid.evaluation.metrics import key_fact
from vgid.model_card import figures_of, write_card
from vgid.models.export import merge_adapter, outputs_of, release, save_adapter, save_checkpoint, verify_export
from vgid.models.loading import LoadedModel, load_model
from vgid.models.quantisation import is_quantised
from vgid.outcome import Outcome, outcome_of, with_protection
from vgid.progress import Progress, Stages, stages_or_own
from vgid.reading import read_json
from vgid.report.html import ReportData, write_report
from vgid.results import SCHEMA, build_results
from vgid.run_folder import check_output, discard, note, output_folder
from vgid.training.checkpointing import remove_checkpoint
from vgid.training.fingerprint import rows_digest
from vgid.training.fit import Fitted, fit
from vgid.training.trackers import check_trackers
from vgid.training.trainer import count_steps
from vgid.training.validation import recalled, surest

CHECKPOINT, EXPORTS = "checkpoint", ("adapter", "merged")
PROBES = 8
"""Rows of each set on which an exported model is compared with the trained one."""
EXAMINED = 200
"""Rows of each set that are asked before and after, unless set otherwise."""
PREFLIGHT_ROWS = 32
"""Forget rows that a preflight asks the model and the teacher, unless set otherwise."""
NEUTRAL_PREFLIGHT_ROWS = 8
"""Neutral rows that a preflight looks at, where these will stand in for retain data."""

log = logging.getLogger("vgid")


@dataclass(frozen=True)
class Trained:
    """What a run leaves: `Unlearned` or `FineTuned`.

    Attributes:
        results: the results object as it is written to `results.json` (schema `vgid.results/1`).
        scores: model to split to figures in [0, 1]; empty with `max_rows=0`.
        curves: part of the loss, recall or drift of some rows, to points (step, value).
        out: folder of the run; None where nothing was written.
        fitted: what training gave; None for a run that was complete already.
    """

    results: dict[str, Any]
    scores: Mapping[str, Mapping[str, SplitResult]]
    curves: Curves
    out: Path | None
    fitted: Fitted | None = field(default=None, repr=False)

    @cached_property
    def model(self) -> LoadedModel:
        """The trained model with its processor; of a run that was complete already, loaded from its folder."""
        return self.fitted.loaded if self.fitted is not None else load_model(Path(str(self.out)) / "merged")


@dataclass(frozen=True)
class Unlearned(Trained):
    """What `unlearn` returns.

    Attributes:
        results: the results object as it is written to `results.json` (schema `vgid.results/1`).
        scores: model (`base`, `unlearned`) to split (`forget`, `held_out`, `retain`) to figures in [0, 1]; empty with `max_rows=0`.
        curves: part of the loss, recall or drift of a held-out part, to points (step, value).
        out: folder of the run; None where nothing was written.
        model: the unlearned model with its processor.
    """

    @property
    def outcome(self) -> Outcome:
        """Whether the forget rows are still answered, and what is left of the retain rows."""
        return Outcome(**self.results["outcome"])

    @property
    def stopped(self) -> str:
        """Why training ended, in words."""
        return str(self.results.get("training"))


def unlearn(
    model: str | Path | LoadedModel,
    forget: Rows,
    retain: Rows | None = None,
    config: RunConfig | None = None,
    *,
    held_out: Rows | None = None,
    out: str | Path | None = None,
    max_rows: int | None = None,
    skip_bad_rows: bool = False,
    allow_unknown: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    checked: Mapping[str, Any] | None = None,
    stages: Stages | None = None,
) -> Unlearned:
    """Make a model forget, after a preflight; examine it before and after; with `out`, write adapter, merged model, results and report.

    All data is read and checked before the model is loaded. With `out`, the run keeps its state in `out/checkpoint` until it is done, so
    that it can be resumed. Where a launcher started several processes, all call this; all examine the base, so that none waits long for
    another, and the first one writes and examines the result.

    Args:
        model: folder or hub id of the model that must forget, or a loaded one, which is changed in place; with `out`, its memory is
            given up for the written model, and `.model` of the result takes its place.
        forget: rows to forget: a file or folder, a dataset, dictionaries, or examples.
        retain: rows to keep; without them, `config.neutral_retain` neutral rows stand in.
        config: settings from `vgid.resolve`; None takes the defaults.
        held_out: rows about the same facts that are not trained on, such as those of `vgid data enrich`: early stopping asks them, and the
            outcome counts them. Without them a part of the forget rows is held out for early stopping.
        out: folder to write to; it must be new or empty. None keeps the result in memory.
        max_rows: rows of each set to ask before and after, and in the preflight, at most; 0 for no examination. None takes 200, and 32 in
            the preflight.
        skip_bad_rows: leave bad rows out, with a warning that lists them, in place of an error.
        allow_unknown: go on although the model does not know the forget set.
        resume: go on from the checkpoint in `out`; without one there, begin anew.
        overwrite: replace what an earlier run left in `out`.
        checked: the preflight of this very run as JSON; then there is no other.
        stages: shows and times what is done; None shows progress bars.

    Returns:
        The unlearned model, scores before and after, curves, and the results object.

    Raises:
        DataError: rows are bad, there are none to forget, or one is in both sets.
        ModelError: the model cannot be loaded, or does not know what it is to forget.
        OutputError: nothing can be written to `out`, there is nothing left to resume, or what is to be resumed is another run.
        RunError: the loss stops being finite, memory does not suffice, or the written model does not answer as the trained one.
        StoppedError: a signal asked the run to stop; it can be resumed.
    """
    config, folder = config or RunConfig(), Path(out) if out is not None else None
    first = begin(config, folder, overwrite=overwrite, resume=resume, inputs=[model, forget, retain, held_out])
    forget_rows, retain_rows = read_rows(forget, retain, config, skip_bad_rows=skip_bad_rows)
    aside = [] if held_out is None else rows_of(held_out, name="held-out", **reading_options(config, skip_bad_rows))
    check_disjoint(forget_rows, aside, names=("forget set", "held-out rows"))
    check_disjoint(aside, retain_rows, names=("held-out rows", "retain set"))
    sets = {"forget": forget_rows, "retain": retain_rows} | ({"held_out": aside} if aside else {})
    if resume and folder is not None and (done := completed(folder, model, config, sets)):
        log.info("this run is complete; there is nothing to resume")
        return Unlearned(done, {}, curves_in(done), folder)
    rows = row_digests(sets, secrets.token_hex(16))
    with stages_or_own(stages, quiet=not first) as shown:
        loaded = load_for(model, config)
        forget_rows, retain_rows = answered(loaded, forget_rows, "forget", shown), answered(loaded, retain_rows, "retain", shown)
        if checked is None:
            found = _preflight(loaded, forget_rows, retain_rows, config, shown, allow_unknown=allow_unknown, sample=_asked(max_rows))
            if first:
                shown.show(screen(found))
            found.raise_errors()
            checked = as_json(found, texts=False)
        retain_rows = with_neutral(loaded, forget_rows, retain_rows, config, shown)
        splits = sampled(
            {"forget": forget_rows, "held_out": aside, "retain": without_guesses(retain_rows)},
            EXAMINED if max_rows is None else max_rows,
            config.seed,
        )
        scores: dict[str, Mapping[str, SplitResult]] = {}
        with output_folder(folder if first else None, keep=resume, goes_on=lambda: left_to_go_on(folder)):
            if splits:
                with shown("Examining the base model", "evaluate") as tick:
                    scores["base"] = evaluate(loaded, splits, seed=config.seed, on_progress=tick)
            with shown("Unlearning", "unlearn") as tick:
                fitted = train_and_export(
                    loaded,
                    forget_rows,
                    retain_rows,
                    config,
                    held_out=aside,
                    out=folder,
                    progress=tick,
                    resume=resume,
                    keep_checkpoint=True,
                )
            if splits and (first or processes.is_sharded(fitted.loaded.model)):
                with shown("Examining the unlearned model", "evaluate") as tick:
                    scores["unlearned"] = evaluate(fitted.loaded, splits, seed=config.seed, on_progress=tick)
            results = build_results(
                model=loaded.path,
                evaluated=scores,
                config=config,
                seed=config.seed,
                seconds=shown.seconds,
                training=fitted.stopped,
                automatic=dict(fitted.automatic),
                curves={name: [list(point) for point in curve] for name, curve in fitted.curves.items()},
                outcome=with_protection(outcome_of(scores), fitted.protected_by, fitted.aside).as_json(),
                preflight=dict(checked),
                rows=rows,
            )
            if folder is not None and first:
                counts = {"forget": len(forget_rows), "retain": len(retain_rows)}
                for name in EXPORTS:
                    if (folder / name).is_dir():
                        write_card(folder / name, loaded.path, config.method.name, figures_of(results["splits"]), rows=counts)
                write_report(folder / "report.html", ReportData(results, title="Unlearning"))
                write_json_atomic(folder / "results.json", results)
                forget_checkpoint(folder)
    return Unlearned(results, scores, fitted.curves, folder, fitted)


def preflight(
    model: str | Path | LoadedModel,
    forget: Rows,
    retain: Rows | None = None,
    config: RunConfig | None = None,
    *,
    max_rows: int | None = None,
    skip_bad_rows: bool = False,
    allow_unknown: bool = False,
    show_forgotten: bool = False,
    stages: Stages | None = None,
) -> Preflight:
    """Look at model, data and settings before a run: what fits, what is trained, and whether there is anything to forget.

    Nothing is written, and the model is left as it was. Where a launcher started several processes, all call this.

    Args:
        model: folder or hub id of the model that must forget, or a loaded one.
        forget: rows to forget: a file or folder, a dataset, dictionaries, or examples.
        retain: rows to keep.
        config: settings from `vgid.resolve`; None takes the defaults.
        max_rows: forget rows that the model and the teacher are asked, at most; None takes 32.
        skip_bad_rows: leave bad rows out, with a warning that lists them, in place of an error.
        allow_unknown: a model that does not know the forget set is not an error.
        show_forgotten: keep a forget row's text in the label sample.
        stages: shows and times what is done; None shows progress bars.

    Returns:
        All that was found; `errors` stop a run, `warnings` do not.

    Raises:
        DataError: rows are bad, the processor refuses them, or they are longer than the context.
        ModelError: the model cannot be loaded, has no chat template, or nothing of it would be trained.
    """
    config = config or RunConfig()
    check_trackers(config.training.report_to)
    processes.start()
    forget_rows, retain_rows = read_rows(forget, retain, config, skip_bad_rows=skip_bad_rows)
    options = {"allow_unknown": allow_unknown, "show_forgotten": show_forgotten, "sample": _asked(max_rows)}
    with stages_or_own(stages) as shown:
        loaded = load_for(model, config)
        forget_rows, retain_rows = answered(loaded, forget_rows, "forget", shown), answered(loaded, retain_rows, "retain", shown)
        return _preflight(loaded, forget_rows, retain_rows, config, shown, **options)


def begin(config: RunConfig, folder: Path | None, *, overwrite: bool, resume: bool, inputs: Sequence[object]) -> bool:
    """Check what can be checked before anything is read, and start the processes of a launcher.

    Args:
        config: settings of the run.
        folder: its output folder; None where nothing is written.
        overwrite: whether it replaces what an earlier run left there.
        resume: whether it goes on from there.
        inputs: what it reads, none of which may lie in the folder.

    Returns:
        Whether this is the first process, which writes.

    Raises:
        ConfigError: the two options contradict each other, or a tracker is not installed.
        OutputError: the folder cannot be written to.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite contradict each other", fix="give one of them")
    first = processes.launched_first()
    if folder is not None and first:
        check_output(folder, overwrite, resume, inputs=inputs)
    check_trackers(config.training.report_to, folder)
    processes.start()
    return first


def reading_options(config: RunConfig, skip_bad_rows: bool) -> dict[str, Any]:
    """Return the options of `rows_of` with which every set of a run is read."""
    return {"turns": config.data.turns, "image_root": config.data.image_root, "skip_bad_rows": skip_bad_rows}


def read_rows(forget: Rows, retain: Rows | None, config: RunConfig, *, skip_bad_rows: bool = False) -> tuple[list[Example], list[Example]]:
    """Read both sets; of the retain set no more rows than the run can use.

    Args:
        forget: rows to forget: a file or folder, a dataset, dictionaries, or examples.
        retain: rows to keep; None for none.
        config: settings, which say how many retain rows the run can use.
        skip_bad_rows: leave bad rows out, with a warning that lists them.

    Returns:
        Forget rows and retain rows.

    Raises:
        DataError: rows are bad, there is nothing to forget, or a row is in both sets.
    """
    reading = reading_options(config, skip_bad_rows)
    forget_rows = rows_of(forget, name="forget", need_answers=False, **reading)
    if not forget_rows:
        raise DataError("there is nothing to forget", expected="at least one forget row", got="none", fix="check the forget data")
    needed = retain_needed(config, len(forget_rows))
    options = {"name": "retain", "need_answers": False, "at_most": needed, "seed": config.seed, **reading}
    retain_rows = [] if retain is None else rows_of(retain, **options)
    check_disjoint(forget_rows, retain_rows)
    return forget_rows, retain_rows


def answered(loaded: LoadedModel, rows: Sequence[Example], name: str, stages: Stages) -> list[Example]:
    """Fill in the model's own answers where rows have none: what it says is what it knows.

    Args:
        loaded: the model before unlearning.
        rows: rows with and without answers.
        name: name of the set, for messages.
        stages: shows and times what is done.

    Returns:
        The rows in their order, all with an answer.

    Raises:
        DataError: the model answers nothing to a row.
    """
    open_rows = [row for row in rows if not row.answer]
    if not open_rows:
        return list(rows)
    with stages(f"Answering {name} rows", "answers"):
        said = processes.from_first(generate(loaded, open_rows))
    log.warning("%d of %d %s rows have no answer; the model's own take their place", len(open_rows), len(rows), name)
    silent = [
        DataError("row has no answer, and the model gives none", where=row.where or row.id, expected="an answer", fix="give one")
        for row, text in zip(open_rows, said, strict=True)
        if not text.strip()
    ]
    if silent:
        raise DataError.together(silent)
    own = {row.id: text.strip() for row, text in zip(open_rows, said, strict=True)}
    return [replace(row, answer=own.get(row.id, row.answer)) for row in rows]


def retain_needed(config: RunConfig, forget_rows: int) -> int:
    """Retain rows that a run can use, at most."""
    return count_steps(config.training, forget_rows, 0) * config.training.retain_rows + config.validation.rows


def train_and_export(
    loaded: LoadedModel,
    forget: Sequence[Example],
    retain: Sequence[Example],
    config: RunConfig,
    *,
    held_out: Sequence[Example] = (),
    out: Path | None = None,
    progress: Progress | None = None,
    resume: bool = False,
    keep_checkpoint: bool = False,
) -> Fitted:
    """Train; with `out`, write `out/adapter` and `out/merged`, reload them with stock libraries and compare.

    Args:
        loaded: the model; it gets an adapter (`config.adapter`), or new weights.
        forget: rows to forget.
        retain: rows to keep.
        config: settings of the run.
        held_out: rows about what must be forgotten that are not trained on, for early stopping.
        out: where to write; None keeps the result in memory.
        progress: called with (steps done, steps in all).
        resume: go on from the checkpoint in `out`; without one there, begin anew.
        keep_checkpoint: leave the last checkpoint, for a caller that has more to do and then calls `forget_checkpoint`.

    Returns:
        The trained model, with `out` as it was written and loaded again; loss curves, and why training ended.

    Raises:
        VgidError: as `unlearn` says.
    """
    checkpoint = out / CHECKPOINT if out is not None else None
    if out is not None and "tensorboard" in config.training.report_to and processes.rank() == 0:
        note(out / "logs", tree=True)
    if resume:
        _check_resumable(checkpoint)
    fitted = fit(loaded, forget, retain, config, held_out=held_out, progress=progress, checkpoint=checkpoint, resume=resume)
    if out is not None and (processes.rank() == 0 or processes.is_sharded(fitted.loaded.model)):
        if resume and processes.rank() == 0:
            _clear_exports(out)
        fitted = _export(fitted, out, [*forget[:PROBES], *retain[:PROBES]])
        if not keep_checkpoint:
            forget_checkpoint(out)
    return fitted


def curves_in(results: Mapping[str, Any]) -> Curves:
    """The curves of a results object, as training gave them; none in results of versions that did not write them."""
    return {name: [(step, value) for step, value in curve] for name, curve in (results.get("curves") or {}).items()}


def forget_checkpoint(out: Path) -> None:
    """Remove the checkpoint of a run that needs it no more."""
    if processes.rank() == 0 and not discard(out / CHECKPOINT):
        remove_checkpoint(out / CHECKPOINT)


def with_neutral(
    loaded: LoadedModel, forget: Sequence[Example], retain: Sequence[Example], config: RunConfig, stages: Stages
) -> list[Example]:
    """Fill in neutral rows where there are no retain rows and the configuration asks for them; every command decides it here.

    Args:
        loaded: the model before unlearning, which answers them.
        forget: rows to forget.
        retain: rows to keep.
        config: settings.
        stages: shows and times what is done.

    Returns:
        The retain rows of the run.
    """
    if retain or not config.neutral_retain:
        return list(retain)
    with stages("Answering neutral questions", "neutral"):
        return processes.from_first(neutral_retain(loaded, forget, config))


def neutral_retain(loaded: LoadedModel, forget: Sequence[Example], config: RunConfig) -> list[Example]:
    """`config.neutral_retain` neutral rows with the model's own answers; with pictures only, for a model that takes no others.

    A model that has learned little else may name a person it must forget even here; such rows are left out, and counted, as are those
    with a part of a fact.

    Args:
        loaded: the model before unlearning.
        forget: rows with facts that must not appear in an answer.
        config: `neutral_retain` and `seed` are read from it.

    Returns:
        Neutral rows with answers, `config.neutral_retain` at most; those that the model guesses are tagged `GUESS`.
    """
    rows = neutral_examples(config.neutral_retain, config.seed)
    try:
        loaded.encoder.check(rows)
    except DataError:
        rows = neutral_examples(config.neutral_retain, config.seed, pictures=1.0)
    answered = own_answers(rows, partial(generate, loaded)) if rows else []
    facts: set[tuple[tuple[str, ...], str]] = {((word,), "") for example in forget for word in example.keywords}
    facts |= {((), example.answer) for example in forget if not example.keywords}
    words = revealing_words(forget)
    kept = [row for row in answered if not mentions(row.answer, words) and not any(key_fact(row.answer, *fact) for fact in facts)]
    if len(kept) < len(rows):
        log.info("%d of %d neutral rows left out: no answer, or one with a fact to forget", len(rows) - len(kept), len(rows))
    known = surest(recalled(loaded.model.eval(), loaded.encoder, kept))
    return [row if yes else replace(row, tags=(*row.tags, GUESS)) for row, yes in zip(kept, known, strict=True)]


def load_for(model: str | Path | LoadedModel, config: RunConfig) -> LoadedModel:
    """Load the model of a run as its settings say: in 4 bits, sharded, with its prompt and limits of the pictures' size."""
    if not isinstance(model, LoadedModel):
        quantise = config.adapter.quantise if config.adapter else None
        model = load_model(model, quantise=quantise, shard=processes.shards(config.training.shard))
    size = PictureSize(config.data.max_pixels, config.data.image_size)
    if size.most_pixels and has_one_size(model.processor):
        log.warning("this model sees every picture at one size of its own; smaller ones take as many tokens")
    model = replace(model, prompt=config.data.prompt) if config.data.prompt else model
    return replace(model, size=size) if size.most_pixels else model


def _asked(max_rows: int | None) -> int:
    return min(PREFLIGHT_ROWS, max_rows) if max_rows else PREFLIGHT_ROWS


def _preflight(
    loaded: LoadedModel, forget: Sequence[Example], retain: Sequence[Example], config: RunConfig, stages: Stages, **options: Any
) -> Preflight:
    """Where neutral rows will stand in for a retain set, some of them are looked at."""
    with stages("Preflight", "preflight"):
        if not retain and config.neutral_retain:
            fewer = {"neutral_retain": min(NEUTRAL_PREFLIGHT_ROWS, config.neutral_retain)}
            retain = neutral_retain(loaded, forget, config.model_copy(update=fewer))
        return check_run(loaded, forget, retain, config, **options)


def left_to_go_on(out: Path | None) -> bool:
    """Return whether a run that failed has left a checkpoint or exports, with which it can go on."""
    return out is not None and any((out / name).exists() for name in (CHECKPOINT, *EXPORTS))


def row_digests(sets: Mapping[str, Sequence[Example]], salt: str) -> dict[str, str]:
    """Digests of sets of rows, so slow and salted that nobody finds a row by trying: they tell whether a complete run had these."""

    def slow(rows: Sequence[Example]) -> str:
        return hashlib.scrypt(rows_digest(rows).encode(), salt=bytes.fromhex(salt), n=2**14, r=8, p=1, dklen=16).hex()

    return {"salt": salt, **{name: slow(rows) for name, rows in sets.items()}}


def completed(
    out: Path, model: str | Path | LoadedModel, config: RunConfig, sets: Mapping[str, Sequence[Example]]
) -> dict[str, Any] | None:
    """The results of a run that has nothing left to do.

    Raises:
        OutputError: it was another run.
    """
    if not (out / "results.json").is_file():
        return None
    results = read_json(out / "results.json")
    if not isinstance(results, dict) or results.get("schema") != SCHEMA:
        raise OutputError(
            "results.json is not that of a run",
            where=out,
            expected=f"schema {SCHEMA}",
            got="something else",
            fix="choose another --out",
        )
    mine = {"model": model.path if isinstance(model, LoadedModel) else str(model), "config": config.model_dump(mode="json")}
    other = [name for name, value in mine.items() if results.get(name) != value]
    rows = results.get("rows")
    if isinstance(rows, dict) and re.fullmatch("[0-9a-f]{32}", str(rows.get("salt"))):
        digests = row_digests(sets, rows["salt"])
        other += [f"{name} rows".replace("_", "-") for name in sorted({**digests, **rows}) if rows.get(name) != digests.get(name)]
    if other:
        raise OutputError(
            "the folder holds a complete run of something else",
            where=out,
            got=f"other {' and '.join(other)}",
            fix="choose another --out, or add --overwrite in place of --resume",
        )
    return results


def _check_resumable(checkpoint: Path | None) -> None:
    if checkpoint is None:
        raise OutputError("there is nothing to resume from", expected="the folder of the run as `out`", got="none", fix="give `out`")
    if not checkpoint.is_dir() and any((checkpoint.parent / name).is_dir() for name in EXPORTS):
        raise OutputError("the run is complete, there is nothing to resume", where=str(checkpoint.parent), fix="use what it left there")


def _clear_exports(out: Path) -> None:
    """Remove what a run that was killed while it wrote its models has left, whole or in part."""
    for name in EXPORTS:
        discard(out / name)


def _export(fitted: Fitted, out: Path, probes: Sequence[Example]) -> Fitted:
    """Write, release the trained model, load what was written and compare: never more than one full model on the device.

    The result holds the written model, since that is what will be deployed.
    """
    loaded = fitted.loaded
    model, device, shard = loaded.model, loaded.model.device, processes.is_sharded(loaded.model)
    if processes.rank() == 0:
        save_adapter(model, out / "adapter")
    if is_quantised(model):
        release(model)
        whole = load_model(loaded.path, device=device, adapter=out / "adapter")  # what is written has full precision
        trained = outputs_of(whole.model, whole.processor, probes)
        release(whole.model)
        merge_adapter(loaded.path, out / "adapter", out / "merged")
    else:
        trained = outputs_of(model, loaded.processor, probes)
        save_checkpoint(model, loaded.processor, out / "merged", loaded)
        release(model)
    if shard:
        processes.exchange(None)  # nobody reads before all is written
    merged = verify_export(trained, device, out, probes, shard=shard)
    return replace(fitted, loaded=replace(merged, asks=loaded.asks, size=loaded.size, prompt=loaded.prompt))


def sampled(sets: Mapping[str, Sequence[Example]], most: int, seed: int) -> dict[str, list[Example]]:
    """Up to `most` rows of each set, drawn by the seed; sets without rows are left out."""
    drawn = {name: list(rows) if len(rows) <= most else Random(seed).sample(list(rows), most) for name, rows in sets.items()}
    return {name: rows for name, rows in drawn.items() if rows}
