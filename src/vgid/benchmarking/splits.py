"""Splits of examples from own data or a benchmark: `vgid data check` and `vgid data convert`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vgid.benchmarks import BENCHMARKS
from vgid.benchmarks.base import Benchmark
from vgid.benchmarks.common.files import locate
from vgid.data.duplicates import Alike, Traces, alike_pictures, alike_texts, same_ids
from vgid.data.example import Example
from vgid.data.sources import DataReport, draw_rows, load_examples, read_all, report, split_files, write_parquet
from vgid.errors import ConfigError, DataError
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
    data: Sequence[str], benchmark: str | None = None, forget_set: str | None = None, protocol: Mapping[str, object] | None = None
) -> CheckedData:
    """Read all rows with their images, count them, and list every problem.

    In own data, `split_files` names the splits, and those with names that start with `forget` and `retain` are compared.

    Args:
        data: files and folders; of a benchmark its folder or hub id, or none where it makes its data.
        benchmark: name of a benchmark; None for own data.
        forget_set: label of the benchmark's forget set; None for its first.
        protocol: settings of the benchmark that deviate from the published ones, by name.

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
    for name, files in named.items():
        read = [read_all(file) for file in files]
        examples = [example for each, _, _ in read for example in each]
        problems, unused = [problem for _, each, _ in read for problem in each], {column for *_, each in read for column in each}
        shown = str(files[0] if len(files) == 1 else files[0].parent)
        splits[name if len(named) > 1 else shown] = report(shown, examples, problems, unused)
        for side in (side for side in kept if name.startswith(side)):
            for example in examples:
                kept[side].add(example)
    compared = all(any(name.startswith(side) for name in named) for side in kept)
    return CheckedData(splits, _overlap("forget", "retain", kept["forget"], kept["retain"]) if compared else None)


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
    damaged: list[tuple[int, DataError]] = []
    examples = draw_rows(split, enumerate(benchmark.examples(split, problems)), damaged, at_most, seed)
    problems += [problem for _, problem in damaged]
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

    Returns:
        The number of rows written.

    Raises:
        ConfigError: there is nothing to convert, no split is named, the file's name has another ending, or there is no such benchmark.
        DataError: the data are not there, or a row is bad.
        OutputError: the file cannot be written.
    """
    if out.suffix != ".parquet":
        raise ConfigError("only parquet can be written", where=str(out), expected="a name that ends in .parquet")
    if benchmark is None:
        if data is None:
            raise ConfigError("there is nothing to convert", fix="give a file or folder, or --benchmark")
        return write_parquet(out, load_examples(data, skip_bad_rows=skip_bad_rows))
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
        problems: list[DataError] = []
        kept = Traces()
        splits[name] = report(name, _traced(benchmark.examples(name, problems), kept, problems), problems)
        seen.append(kept)
    return CheckedData(splits, _overlap(*benchmark.training_splits, *seen[:2]))


def _traced(examples: Iterator[Example], kept: Traces, problems: list[DataError]) -> Iterator[Example]:
    """Pass on the examples with images that can be opened, and add their traces to `kept`; the others go to `problems`."""
    for example in examples:
        try:
            kept.add(example)
        except DataError as problem:
            problems.append(DataError(problem.problem, where=example.where, expected=problem.expected, got=problem.got, fix=problem.fix))
            continue
        yield example


def _overlap(forget: str, retain: str, a: Traces, b: Traces) -> Overlap:
    return Overlap(forget, retain, tuple(same_ids(a, b)), tuple(alike_pictures(a, b)), tuple(alike_texts(a, b)))
