"""Make vision-language models forget: Visual-Noise Guided In-Context Distillation (arXiv 2606.00105).

>>> from vgid import evaluate, load_examples, load_model, unlearn  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgid.config import RunConfig, load_config
    from vgid.data.example import Example, ImageRef
    from vgid.data.sources import load_examples
    from vgid.errors import VgidError
    from vgid.evaluation.evaluate import evaluate
    from vgid.models.loading import load_model
    from vgid.training.fit import unlearn

_WHERE = {
    "Example": "vgid.data.example",
    "ImageRef": "vgid.data.example",
    "RunConfig": "vgid.config",
    "VgidError": "vgid.errors",
    "evaluate": "vgid.evaluation.evaluate",
    "load_config": "vgid.config",
    "load_examples": "vgid.data.sources",
    "load_model": "vgid.models.loading",
    "unlearn": "vgid.training.fit",
}
__all__ = ["Example", "ImageRef", "RunConfig", "VgidError", "evaluate", "load_config", "load_examples", "load_model", "unlearn"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for, so that `vgid --help` need not wait for torch.
    if name not in _WHERE:
        raise AttributeError(f"module 'vgid' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
