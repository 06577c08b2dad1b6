"""Make vision-language models forget: Visual-Noise Guided In-Context Distillation (arXiv 2606.00105).

>>> import vgid  # doctest: +SKIP
>>> forget, retain = vgid.load_examples("forget.jsonl"), vgid.load_examples("retain.jsonl")  # doctest: +SKIP
>>> done = vgid.unlearn("path/to/model", forget, retain, out="runs/forgotten")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgid.auditing.audit import AuditResult, audit
    from vgid.checks.preflight import Preflight
    from vgid.comparison.compare import compare
    from vgid.config import RunConfig, load_config, resolve
    from vgid.data.example import Example, ImageRef
    from vgid.data.sources import load_examples
    from vgid.errors import VgidError
    from vgid.evaluation.evaluate import SplitResult, evaluate
    from vgid.finetuning import FineTuned, finetune
    from vgid.models.loading import LoadedModel, load_model
    from vgid.training.fit import Fitted
    from vgid.unlearning import Unlearned, preflight, unlearn

_WHERE = {
    "AuditResult": "vgid.auditing.audit",
    "Example": "vgid.data.example",
    "Fitted": "vgid.training.fit",
    "ImageRef": "vgid.data.example",
    "LoadedModel": "vgid.models.loading",
    "Preflight": "vgid.checks.preflight",
    "RunConfig": "vgid.config",
    "SplitResult": "vgid.evaluation.evaluate",
    "Unlearned": "vgid.unlearning",
    "VgidError": "vgid.errors",
    "audit": "vgid.auditing.audit",
    "compare": "vgid.comparison.compare",
    "evaluate": "vgid.evaluation.evaluate",
    "FineTuned": "vgid.finetuning",
    "finetune": "vgid.finetuning",
    "load_config": "vgid.config",
    "load_examples": "vgid.data.sources",
    "load_model": "vgid.models.loading",
    "preflight": "vgid.unlearning",
    "resolve": "vgid.config",
    "unlearn": "vgid.unlearning",
}
__all__ = [
    "AuditResult",
    "Example",
    "FineTuned",
    "Fitted",
    "ImageRef",
    "LoadedModel",
    "Preflight",
    "RunConfig",
    "SplitResult",
    "Unlearned",
    "VgidError",
    "audit",
    "compare",
    "evaluate",
    "finetune",
    "load_config",
    "load_examples",
    "load_model",
    "preflight",
    "resolve",
    "unlearn",
]


def __getattr__(name: str) -> Any:
    # Loaded when asked for, so that `vgid --help` need not wait for torch.
    if name not in _WHERE:
        raise AttributeError(f"module 'vgid' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return __all__
