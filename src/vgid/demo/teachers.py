"""What the teacher says before anybody learns from it: the premise of the paper, that neither noise nor instruction suffices alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean

from vgid.config import RunConfig
from vgid.data.batching import Batch
from vgid.data.example import Example
from vgid.evaluation.generation import generate
from vgid.evaluation.metrics import is_refusal, key_fact
from vgid.methods.vgid import VGIDConfig
from vgid.models.loading import LoadedModel
from vgid.perturbation import perturb_batch


def examine_teachers(loaded: LoadedModel, examples: Sequence[Example], configs: Mapping[str, RunConfig]) -> dict[str, dict[str, float]]:
    """Ask the memorising model as each configuration's teacher is asked; by name, how often it gives the fact and how often it refuses."""
    out = {}
    for name, config in configs.items():
        said = generate(loaded, examples, encode=partial(_as_teacher, loaded, config))
        out[name] = {
            "n": len(examples),
            "accuracy": fmean(key_fact(text, e.keywords, e.answer) for text, e in zip(said, examples, strict=True)),
            "refusal_rate": fmean(map(is_refusal, said)),
        }
    return out


def _as_teacher(loaded: LoadedModel, config: RunConfig, examples: Sequence[Example]) -> Batch:
    settings, seed = VGIDConfig.model_validate(config.method.model_dump()), (config.seed, "examined teacher")
    return perturb_batch(loaded.encoder, examples, settings.noise, seed=seed, instruction=settings.instruction_text, prompts_only=True)
