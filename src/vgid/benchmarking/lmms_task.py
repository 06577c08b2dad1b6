"""A benchmark, or own rows, as a task of lmms-eval: a folder with the questions, and functions that measure with vgid.

lmms-eval puts all pictures before one text, so questions that need another order are refused.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import yaml
from PIL import Image
from pyarrow import parquet

from vgid.artifacts import whole_folder, write_text_atomic
from vgid.attacks.image_rephrase import encoded
from vgid.benchmarking.questions import asked, measured, opened
from vgid.benchmarks.base import Benchmark, Item
from vgid.data.example import IMAGE
from vgid.errors import ConfigError, DataError

log = logging.getLogger("vgid")
ROWS, FUNCTIONS = "rows.parquet", "functions.py"
SCHEMA = pyarrow.schema(
    [("key", pyarrow.string()), ("question", pyarrow.string()), ("answer", pyarrow.string()), ("images", pyarrow.list_(pyarrow.binary()))]
)
CODE = '''\
"""Functions of this task; vgid measures."""

from vgid.benchmarking.lmms_task import pictures, values

ASKED = {asked!r}


def visual(doc):
    return pictures(doc)


def results(doc, said):
    return values(ASKED, doc["key"], said)
'''


def write_task(described: str, task: str, out: Path) -> dict[str, Any]:
    """Write a task that `lmms_eval --include_path` finds.

    Args:
        described: what is asked, from `vgid.benchmarking.questions.describe`.
        task: name of the task.
        out: the folder to make.

    Returns:
        Name of the task, number of questions, and names of its metrics, `SPLIT_TASK_METRIC`.

    Raises:
        ConfigError: the name cannot be a task's, or figures need a reference model.
        DataError: rows are bad, or a question has several turns or pictures between its words.
        OutputError: the folder is not empty, or cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", task):
        raise ConfigError("there can be no such task", where="--task", expected="letters, digits, - and _", got=repr(task))
    benchmark, items = opened(described)
    if other := sum(bool(item.example.context) or IMAGE in item.example.question for item in items.values()):
        raise DataError(
            "lmms-eval asks one text after all pictures",
            expected="rows of one turn, with pictures first",
            got=f"{other} of {len(items)} others",
            fix="ask these with `vgid evaluate`, or as a task of inspect_ai",
        )
    with_pictures = 0
    names = {name: better for item in items.values() for name, better in _metrics(described, benchmark, item)}
    with whole_folder(out) as folder:
        with parquet.ParquetWriter(folder / ROWS, SCHEMA) as writer:
            for item in asked(benchmark):
                with_pictures += bool(item.example.images)
                writer.write_table(pyarrow.Table.from_pylist([_row(item)], SCHEMA))
        write_text_atomic(folder / FUNCTIONS, CODE.format(asked=described))
        write_text_atomic(folder / f"{task}.yaml", _yaml(task, out.resolve() / ROWS, items.values(), names))
    if bare := len(items) - with_pictures:
        log.warning("%d of %d questions have no picture: llava_hf of lmms-eval 0.7.3 answers them with nothing", bare, len(items))
    return {"task": task, "questions": len(items), "metrics": list(names)}


def pictures(doc: Mapping[str, Any]) -> list[Image.Image]:
    """Open the pictures of a question."""
    return [Image.open(io.BytesIO(each)).convert("RGB") for each in doc["images"]]


def values(described: str, key: str, said: Sequence[str]) -> dict[str, float]:
    """Measure an answer; lmms-eval averages each metric over the questions that have it."""
    item = opened(described)[1][key]
    return {_name(item, metric): value for metric, value in measured(described, key, said[0]).items()}


def _metrics(described: str, benchmark: Benchmark, item: Item) -> Iterator[tuple[str, bool]]:
    """Names of the metrics that a question has, and whether more is better."""
    for metric in measured(described, item.key, item.example.answer):
        yield _name(item, metric), benchmark.metrics[metric].wanted(item.split) == "up"


def _name(item: Item, metric: str) -> str:
    return re.sub(r"\W+", "_", f"{item.split}_{item.task}_{metric}")


def _row(item: Item) -> dict[str, Any]:
    images = [encoded(ref.open()).data for ref in item.example.images]
    return {"key": item.key, "question": item.example.question, "answer": item.example.answer, "images": images}


def _yaml(task: str, rows: Path, items: Any, metrics: Mapping[str, bool]) -> str:
    """The task's definition; `!function` is a tag of lmms-eval's, which PyYAML cannot write."""
    length = max(item.max_new_tokens for item in items)
    plain = {
        "task": task,
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "answer",
        "generation_kwargs": {"max_new_tokens": length, "temperature": 0},
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": better} for name, better in metrics.items()],
    }
    functions = "doc_to_visual: !function functions.visual\nprocess_results: !function functions.results\n"
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True) + functions
