"""Splits of examples from own data or a benchmark: `vgid data check` and `vgid data convert`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from vgid.benchmarks import BENCHMARKS
from vgid.benchmarks.base import Benchmark
from vgid.benchmarks.common.files import locate
from vgid.data.duplicates import Alike, Traces, alike_pictures, alike_texts, same_ids
from vgid.data.example import Example
from vgid.data.problems import Notes, Problems
from vgid.data.report import DataReport, report
from vgid.data.rows import Reading
from vgid.data.sources import checked, data_files, draw_rows, read_all, split_files, stream
from vgid.data.writing import is_written, write_parquet
from vgid.errors import ConfigError, DataError, OutputError
from vgid.reading import parse_yaml

log = logging.getLogger("vgid")
SHOWN = 5
"""Pairs of rows that a message lists, at most."""


def open_benchmark(name: str, data: str | None, forget_set: str | None, protocol: Mapping[str, object] | None = None) -> Benchmark:
    """Open a benchmark over its data.

    Args:
        name: name of the benchmark.
        data: folder, file or hub id (`owner/name@revision`); None for a benchmark that makes its data.
        forget_set: label of the forget set; None for the benchmark's first.
        protocol: settings that deviate from the published ones, by name.

    Returns:
        The benchmark; no row has been read yet.

    Raises:
        ConfigError: there is no such benchmark or setting.
        DataError: the data are not there, or the benchmark has no such forget set.
    """
    from pydantic import ValidationError

    kind = BENCHMARKS.get(name)
    try:
        chosen = kind.Protocol(**(protocol or {}))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False))
        known = ", ".join(kind.Protocol.model_fields)
        raise ConfigError(f"the protocol of {kind.title} has no such settings", expected=f"settings among {known}", got=problems) from None
    sources = [source for source in (kind.source, kind.training) if source is not None]
    return kind(locate(data, *sources) if data is not None else None, chosen, forget_set)


def parse_protocol(settings: Sequence[str]) -> dict[str, object]:
    """Parse settings of a protocol, `name=value` with the value as YAML.

    Raises:
        ConfigError: a setting cannot be parsed.
    """
    read: dict[str, object] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        read[name] = parse_yaml(value, f"--protocol {name}", ConfigError)
        if not equals or not name:
            raise ConfigError("the setting of the protocol cannot be parsed", expected="name=value", got=repr(setting))
    return read


@dataclass(frozen=True)
class Overlap:
    """What the forget set and the retain set have in common: places of rows, never their contents.

    Attributes:
        forget: name of the forget split.
        retain: name of the retain split.
        ids: rows with the same id.
        pictures: rows with images that look alike.
        texts: rows with nearly the same text.
    """

    forget: str
    retain: str
    ids: tuple[Alike, ...]
    pictures: tuple[Alike, ...]
    texts: tuple[Alike, ...]

    def __str__(self) -> str:
        lines = [f"{self.forget} and {self.retain} have in common:"]
        for what, pairs in (("ids", self.ids), ("pictures that look alike", self.pictures), ("texts that are nearly the same", self.texts)):
            lines.append(f"  {len(pairs)} {what}")
            lines += [f"    {pair.forget} and {pair.retain} ({pair.likeness:.0%})" for pair in pairs[:SHOWN]]
            lines += [f"    ... and {len(pairs) - SHOWN} more"] if len(pairs) > SHOWN else []
        return "\n".join(lines)


class CheckedData(NamedTuple):
    """What `check_data` found.

    Attributes:
        splits: counts and problems of every split, by name.
        overlap: what the forget set and the retain set have in common; None without both.
    """

    splits: dict[str, DataReport]
    overlap: Overlap | None


def check_data(
    data: Sequence[str],
    benchmark: str | None = None,
    forget_set: str | None = None,
    protocol: Mapping[str, object] | None = None,
    reading: Reading | None = None,
) -> CheckedData:
    """Read all rows with their images, count them, and list every problem.

    In own data, `split_files` names the splits, and those with names that start with `forget` and `retain` are compared.

    Args:
        data: files and folders; of a benchmark its folder or hub id, or none where it makes its data.
        benchmark: name of a benchmark; None for own data.
        forget_set: label of the benchmark's forget set; None for its first.
        protocol: settings of the benchmark that deviate from the published ones, by name.
        reading: how rows of own data are read; None for the defaults.

    Returns:
        Counts and problems by split, and what the forget set and the retain set have in common.

    Raises:
        ConfigError: there is nothing to check, or no such benchmark or setting.
        DataError: the data are not there, or have another layout.
    """
    if benchmark is not None:
        return _check_benchmark(open_benchmark(benchmark, data[0] if data else None, forget_set, protocol))
    if not data:
        raise ConfigError("there is nothing to check", fix="give files or folders, or --benchmark")
    splits, kept = {}, {"forget": Traces(), "retain": Traces()}
    named = split_files([Path(path) for path in data])
    compared = all(any(name.startswith(side) for name in named) for side in kept)
    for name, files in named.items():
        problems, notes = Problems(), Notes()
        rows = stream(files, problems, notes, reading)
        side = next((side for side in kept if compared and name.startswith(side)), None)
        shown = str(files[0] if len(files) == 1 else files[0].parent)
        found = report(shown, kept[side].passing(rows) if side else rows, problems, notes)
        splits[name if len(named) > 1 else shown] = found
    return CheckedData(splits, _overlap("forget", "retain", kept["forget"], kept["retain"]) if compared else None)


def first_rows(
    data: Sequence[str],
    count: int,
    benchmark: str | None = None,
    forget_set: str | None = None,
    protocol: Mapping[str, object] | None = None,
    reading: Reading | None = None,
) -> dict[str, list[Example]]:
    """Read the first good rows of each split that `check_data` names.

    Args:
        data: files and folders; of a benchmark its folder or hub id, or none where it makes its data.
        count: rows of each split, at most.
        benchmark: name of a benchmark; None for own data.
        forget_set: label of the benchmark's forget set; None for its first.
        protocol: settings of the benchmark that deviate from the published ones, by name.
        reading: how rows of own data are read; None for the defaults.

    Returns:
        Rows by split; bad rows are passed over.

    Raises:
        ConfigError: there is no such benchmark or setting.
        DataError: the data are not there, or have another layout.
    """
    if benchmark is not None:
        source = open_benchmark(benchmark, data[0] if data else None, forget_set, protocol)
        return {name: list(islice(source.examples(name, []), count)) for name in source.training_splits}
    named = split_files([Path(path) for path in data])
    return {name: list(islice(stream(files, Problems(), Notes(), reading), count)) for name, files in named.items()}


def read_split(
    benchmark: Benchmark, split: str, *, skip_bad_rows: bool = False, at_most: int | None = None, seed: int = 0
) -> list[Example]:
    """Read a split's rows for unlearning, and check their images.

    Args:
        benchmark: the benchmark.
        split: name of the split.
        skip_bad_rows: leave bad rows out, with a warning for each, in place of an error.
        at_most: number of rows to draw at random while reading; None takes all.
        seed: random seed of the draw.

    Returns:
        The rows, in the order of the data.

    Raises:
        DataError: rows are bad, all of which the message lists, or there is no good row.
    """
    problems: list[DataError] = []
    damaged = Problems()
    examples = draw_rows(split, enumerate(benchmark.examples(split, problems)), damaged, at_most, seed)
    problems += damaged
    if problems and not skip_bad_rows:
        raise DataError.together(problems)
    for problem in problems:
        log.warning("row left out: %s", problem)
    if not examples:
        raise DataError(f"the split {split!r} has no rows", where=benchmark.place.root, expected="at least one good row")
    return examples


def convert_data(
    data: str | None,
    out: Path,
    benchmark: str | None = None,
    forget_set: str | None = None,
    split: str | None = None,
    *,
    protocol: Mapping[str, object] | None = None,
    skip_bad_rows: bool = False,
    reading: Reading | None = None,
    overwrite: bool = False,
) -> int:
    """Write own data, or a split of a benchmark, as one parquet file.

    Args:
        data: file or folder; of a benchmark its folder or hub id, or None where it makes its data.
        out: the file to write; its name ends in `.parquet`.
        benchmark: name of a benchmark; None for own data.
        forget_set: label of the benchmark's forget set; None for its first.
        split: the benchmark's split to write.
        protocol: settings of the benchmark that deviate from the published ones, by name.
        skip_bad_rows: leave bad rows out, with a warning for each, in place of an error.
        reading: how rows of own data are read; None for the defaults.
        overwrite: whether a file of this name, which an earlier call wrote, is replaced.

    Returns:
        The number of rows written.

    Raises:
        ConfigError: there is nothing to convert, no split is named, the file's name has another ending, or there is no such benchmark.
        DataError: the data are not there, or a row is bad.
        OutputError: the file exists already, or cannot be written.
    """
    if out.suffix != ".parquet":
        raise ConfigError("only parquet can be written", where=str(out), expected="a name that ends in .parquet")
    if out.is_dir() or (out.exists() and not overwrite):
        raise OutputError("the file exists already", where=str(out), fix="choose another name, or add --overwrite")
    if out.exists() and not is_written(out):
        fix = "choose another name, or remove the file yourself"
        raise OutputError("the file was not written by vgid, so it is not replaced", where=str(out), fix=fix)
    if benchmark is None:
        if data is None:
            raise ConfigError("there is nothing to convert", fix="give a file or folder, or --benchmark")
        found = read_all(data, reading=reading)
        if any(out.exists() and out.samefile(file) for file in data_files(Path(data))):  # what is not read of it would be lost
            raise OutputError("the file to write is read, too", where=str(out), fix="choose another name")
        return write_parquet(out, found.usable(data, skip_bad_rows=skip_bad_rows))
    source = open_benchmark(benchmark, data, forget_set, protocol)
    if split is None:
        raise ConfigError(f"{source.title} has several splits", expected=f"--split, one of {', '.join(source.training_splits)} for example")
    problems: list[DataError] | None = [] if skip_bad_rows else None
    rows = write_parquet(out, source.examples(split, problems))
    for problem in problems or ():
        log.warning("row left out: %s", problem)
    return rows


def _check_benchmark(benchmark: Benchmark) -> CheckedData:
    splits, seen = {}, []
    for name in benchmark.training_splits:
        bad: list[DataError] = []
        problems, kept, notes = Problems(), Traces(), Notes()
        rows = checked(enumerate(benchmark.examples(name, bad)), problems, notes)
        splits[name] = report(name, kept.passing(rows), chain(bad, problems), notes)
        seen.append(kept)
    return CheckedData(splits, _overlap(*benchmark.training_splits, *seen[:2]))


def _overlap(forget: str, retain: str, a: Traces, b: Traces) -> Overlap:
    return Overlap(forget, retain, tuple(same_ids(a, b)), tuple(alike_pictures(a, b)), tuple(alike_texts(a, b)))
