"""What `vgid audit` does between reading files and showing a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from vgid.artifacts import prepare_output, write_json_atomic, write_text_atomic
from vgid.attacks.base import Endpoint, Material, sample_alike, sample_rows
from vgid.attacks.served import check_endpoint
from vgid.auditing.policy import Policy, Profile
from vgid.auditing.run import run_attacks
from vgid.data.sources import Rows, check_disjoint, load_examples, rows_of
from vgid.errors import DataError
from vgid.models.loading import load_model
from vgid.progress import Stages
from vgid.report.audit_page import render_audit

PROFILE_ROWS: Mapping[Profile, tuple[int, int]] = {"quick": (96, 48), "full": (240, 96)}
"""At most so many forget rows (and rows about people nobody met), and so many retain rows, are asked."""


def audit_command(
    models: Mapping[str, tuple[str | None, Path | None]],
    forget: Rows,
    retain: Rows,
    policy: Policy,
    *,
    unseen: Path | None = None,
    rewordings: Path | None = None,
    views: Path | None = None,
    served: Endpoint | None = None,
    profile: Profile = "quick",
    rows: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    out: Path | None = None,
    stages: Stages,
) -> dict[str, Any]:
    """Read and check all data, then attack one model after the other; each is a (path, adapter) pair."""
    if served is not None:
        check_endpoint(served)
    forget_rows, retain_rows = rows_of(forget), rows_of(retain)
    check_disjoint(forget_rows, retain_rows)
    most, control = (rows, rows) if rows else PROFILE_ROWS[profile]
    material = Material(
        sample_rows(forget_rows, most, seed),
        sample_alike(retain_rows, forget_rows, control, seed),
        seed,
        sample_rows(load_examples(unseen), most, seed) if unseen else (),
        read_rewordings(rewordings) if rewordings else {},
        batch_size,
        [*forget_rows, *retain_rows],
        load_examples(views) if views else (),
        served,
    )
    if out is not None:
        prepare_output(out)
    loaders = {role: partial(load_model, str(path), adapter=adapter) for role, (path, adapter) in models.items() if path}
    with stages("Attacking", "attacks") as tick:
        results = run_attacks(loaders, material, policy, profile=profile, on_progress=tick)
    results |= {"models": {role: path for role, (path, _) in models.items() if path}, "seconds": stages.seconds}
    if out is not None:
        write_json_atomic(out / "audit.json", results)
        write_text_atomic(out / "audit.html", render_audit(results))
    return results


def read_rewordings(path: Path) -> dict[str, Sequence[str]]:
    """Read a YAML or JSON file that maps questions, or ids of rows, to lists of other wordings.

    Raises:
        DataError: the file is missing, is no YAML, or holds something else.
    """
    if not path.is_file():
        raise DataError("no such file of rewordings", where=str(path), expected="a YAML or JSON file", fix="check the path")
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        raise DataError("the rewordings are no valid YAML", where=f"{path}:{line + 1}" if line is not None else str(path)) from None
    right = isinstance(values, dict) and all(
        isinstance(key, str) and isinstance(texts, list) and all(isinstance(text, str) and text for text in texts)
        for key, texts in values.items()
    )
    if not right:
        raise DataError("the rewordings cannot be read", where=str(path), expected="question or id: [wording, ...]", got="something else")
    return {str(key): texts for key, texts in values.items()}
