"""The answers of VGID's teacher before anything is trained: noise alone and instruction alone do not suffice.

That is the premise of the method (arXiv 2606.00105), checked on the demo's forget questions.
"""

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


def evaluate_teachers(loaded: LoadedModel, examples: Sequence[Example], configs: Mapping[str, RunConfig]) -> dict[str, dict[str, float]]:
    """Ask a model as each configuration's teacher is asked: with its noise on the pictures and its instruction before the question.

    Args:
        loaded: the model that has memorised the facts.
        examples: questions with recorded answers.
        configs: VGID runs by name.

    Returns:
        For each name: `n`, the number of questions; `accuracy`, the share of answers with the fact; `refusal_rate`, the share that refuse.
    """
    out = {}
    for name, config in configs.items():
        answers = generate(loaded, examples, encode=partial(_teacher_batch, loaded, config))
        out[name] = {
            "n": len(examples),
            "accuracy": fmean(key_fact(text, e.keywords, e.answer) for text, e in zip(answers, examples, strict=True)),
            "refusal_rate": fmean(map(is_refusal, answers)),
        }
    return out


def _teacher_batch(loaded: LoadedModel, config: RunConfig, examples: Sequence[Example]) -> Batch:
    settings, seed = VGIDConfig.model_validate(config.method.model_dump()), (config.seed, "examined teacher")
    return perturb_batch(loaded.encoder, examples, settings.noise, seed=seed, instruction=settings.instruction_text, prompts_only=True)
