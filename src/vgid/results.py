"""The results object, schema `vgid.results/1`, and where it comes from."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from vgid.config import RunConfig
from vgid.evaluation.evaluate import SplitResult, forget_quality

SCHEMA = "vgid.results/1"
Evaluated = Mapping[str, Mapping[str, SplitResult]]
"""Model ("base", "unlearned", "retrained") to split to figures."""


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    packages = {name: version(name) for name in ("vgid", "torch", "transformers", "peft", "accelerate")}
    return {"python": platform.python_version(), **packages}


def build_results(
    *,
    model: str,
    evaluated: Evaluated,
    config: RunConfig | None = None,
    seed: int = 0,
    ablation: Evaluated | None = None,
    seconds: Mapping[str, float] | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Put the results object together; it holds figures and settings, nothing of what was asked or answered."""
    names = list(dict.fromkeys(split for results in evaluated.values() for split in results))
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "method": config.method["name"] if config else None,
        "model": model,
        "seed": seed,
        "config": config.model_dump(mode="json") if config else None,
        "versions": versions(),
        "splits": {split: {name: results[split].as_json() for name, results in evaluated.items() if split in results} for split in names},
        "ablation": {name: {split: result.as_json() for split, result in results.items()} for name, results in (ablation or {}).items()},
        "seconds": dict(seconds or {}),
        **extra,
    }
    if {"unlearned", "retrained"} <= set(evaluated) and "forget" in evaluated["unlearned"]:
        ks = forget_quality(evaluated["unlearned"]["forget"], evaluated["retrained"]["forget"])
        results["forget_quality"] = {"statistic": ks.statistic, "p_value": ks.p_value}
    return results
