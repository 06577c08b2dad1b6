"""The table of benchmarks in docs/benchmarks.md, generated from the registry."""

from __future__ import annotations

import re

from vgid.benchmarks import BENCHMARKS
from vgid.benchmarks.base import Benchmark
from vgid.benchmarks.common.files import Source

COLUMNS = ("name", "benchmark", "forget sets (the first by default)", "data", "asks", "metrics", "needs a reference")


def as_markdown() -> str:
    """Return the built-in benchmarks as a Markdown table with one line each, in alphabetical order."""
    kinds = [BENCHMARKS.get(name) for name in BENCHMARKS if BENCHMARKS.package(name) is None]
    lines = [f"| {' | '.join(cells)} |" for cells in (COLUMNS, *map(_cells, kinds))]
    return "\n".join([lines[0], "|---" * len(COLUMNS) + "|", *lines[1:], ""])


def _cells(kind: type[Benchmark]) -> tuple[str, ...]:
    benchmark = kind()
    asks = (kind.__doc__ or "").splitlines()[0].removeprefix(f"{kind.title}: ").removesuffix(".")
    sources = [_link(source) for source in (kind.source, kind.training) if source is not None]
    return (
        f"`{kind.name}`",
        _title(kind),
        ", ".join(kind.forget_sets),
        ", ".join(sources) or "–",
        f"{asks}; {benchmark.protocol.max_new_tokens} tokens",
        ", ".join(f"`{metric}`" for metric in kind.metrics),
        "yes" if benchmark.needs_reference else "no",
    )


def _title(kind: type[Benchmark]) -> str:
    arxiv = re.fullmatch(r"arXiv (\d{4}\.\d{5})", kind.paper)
    return f"{kind.title} ([{arxiv[1]}](https://arxiv.org/abs/{arxiv[1]}))" if arxiv else kind.title


def _link(source: Source) -> str:
    folder = "datasets/" if source.kind == "dataset" else ""
    return f"[{source.id}](https://huggingface.co/{folder}{source.id})"
