"""Named sets of examples out of own data or a benchmark, streamed: what `vgid data check` and `vgid data convert` look at."""

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

log = logging.getLogger("vgid")
SHOWN = 5


def open_benchmark(name: str, data: str | None, forget_set: str | None, protocol: Mapping[str, object] | None = None) -> Benchmark:
    """A benchmark over its data.

    Raises:
        ConfigError: no such benchmark or setting.
        DataError: the data are not there.
    """
    from pydantic import ValidationError

    kind = BENCHMARKS.get(name)
    try:
        chosen = kind.Protocol(**(protocol or {}))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False))
        known = ", ".join(kind.Protocol.model_fields)
        raise ConfigError(f"{kind.title} cannot be asked like that", expected=f"settings among {known}", got=problems) from None
    sources = [source for source in (kind.source, kind.training) if source is not None]
    return kind(locate(data, *sources) if data is not None else None, chosen, forget_set)


def parse_protocol(settings: Sequence[str]) -> dict[str, object]:
    """`a=b` settings of a protocol, values as YAML.

    Raises:
        ConfigError: one cannot be read.
    """
    import yaml

    read: dict[str, object] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        try:
            read[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not equals or not name:
            raise ConfigError("cannot read a setting", expected="name=value", got=repr(setting))
    return read


@dataclass(frozen=True)
class Overlap:
    """What the forget and the retain set have in common; places only, never contents."""

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


class Checked(NamedTuple):
    """Counts of every split, and what forget and retain have in common."""

    splits: dict[str, DataReport]
    overlap: Overlap | None


def check_data(
    data: Sequence[str], benchmark: str | None = None, forget_set: str | None = None, protocol: Mapping[str, object] | None = None
) -> Checked:
    """Read everything, pictures included, and count; problems are listed, not raised.

    Own data: splits are named as `split_files` has it; those whose names start with `forget` and `retain` are compared.

    Raises:
        DataError: there is no such data, or it is of another layout.
        ConfigError: no such benchmark.
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
    return Checked(splits, _overlap("forget", "retain", kept["forget"], kept["retain"]) if compared else None)


def read_split(
    benchmark: Benchmark, split: str, *, skip_bad_rows: bool = False, at_most: int | None = None, seed: int = 0
) -> list[Example]:
    """A split's rows for unlearning, pictures checked; `at_most` so many, drawn by the seed while reading.

    Raises:
        DataError: with every problem of the split, or when it has no good row.
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
    """Write own data, or a split of a benchmark, as one parquet file; gives the number of rows.

    Raises:
        ConfigError: no such benchmark, no split named, or the file is no parquet file.
        DataError: there is no such data, or a row is bad.
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


def _check_benchmark(benchmark: Benchmark) -> Checked:
    splits, seen = {}, []
    for name in benchmark.training_splits:
        problems: list[DataError] = []
        kept = Traces()
        splits[name] = report(name, _watched(benchmark.examples(name, problems), kept, problems), problems)
        seen.append(kept)
    return Checked(splits, _overlap(*benchmark.training_splits, *seen[:2]))


def _watched(examples: Iterator[Example], kept: Traces, problems: list[DataError]) -> Iterator[Example]:
    """The examples whose pictures can be opened; keeps their traces."""
    for example in examples:
        try:
            kept.add(example)
        except DataError as problem:
            problems.append(DataError(problem.problem, where=example.where, expected=problem.expected, got=problem.got, fix=problem.fix))
            continue
        yield example


def _overlap(forget: str, retain: str, a: Traces, b: Traces) -> Overlap:
    return Overlap(forget, retain, tuple(same_ids(a, b)), tuple(alike_pictures(a, b)), tuple(alike_texts(a, b)))
