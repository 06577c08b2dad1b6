"""Trackers of other makers, which get loss curves and nothing of the data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vgid.errors import ConfigError, nearest


def check_trackers(names: Sequence[str], out: Path | None = None) -> None:
    """Make sure that all trackers are known and installed; TensorBoard writes into `out/logs`, unless the environment says otherwise.

    Raises:
        ConfigError: a tracker is not known to transformers, or its package is not installed.
    """
    if not names:
        return
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

    there = get_available_reporting_integrations()
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            close = nearest(name, INTEGRATION_TO_CALLBACK)
            raise ConfigError(
                "unknown tracker",
                where="training.report_to",
                expected=", ".join(sorted(INTEGRATION_TO_CALLBACK)),
                got=repr(name),
                fix=f"did you mean {close!r}?" if close else None,
            )
        if name not in there:
            raise ConfigError(f"the tracker {name} is not installed", where="training.report_to", fix=f"pip install {name}")
    if out is not None and "tensorboard" in names:
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(out / "logs"))
