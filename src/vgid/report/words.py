"""Results in plain words: names for models and splits, numbers as people read them, and the headline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

Figures = Mapping[str, Any]
"""One model on one split: n, accuracy, rouge_l, probability, refusal_rate, accuracy_ci."""
Group = Literal["forget", "keep", "strangers"]

MODELS = {"base": "Before", "unlearned": "Unlearned", "retrained": "Retrained"}
"""Models in the order they are shown."""
GROUPS: dict[Group, str] = {
    "forget": "To be forgotten",
    "keep": "To be kept",
    "strangers": "Never known",
}
"""Groups of splits in the order they are shown."""
_SPLITS = {
    "forget": "facts about forgotten people, by picture",
    "forget_views": "the same, with pictures never trained on",
    "forget_reworded": "the same, in wordings never trained on",
    "forget_text": "the same, by name, without a picture",
    "forget_perception": "what pictures of forgotten people show",
    "retain": "facts about everyone else, by picture",
    "retain_views": "the same, with pictures never trained on",
    "retain_reworded": "the same, in wordings never trained on",
    "retain_text": "the same, by name, without a picture",
    "perception": "what pictures of everyone else show",
    "strangers": "people the model never met: it should say that it does not know",
}
OTHER_WAYS = ("forget_views", "forget_reworded", "forget_text")
"""Splits that ask for forgotten facts in another way than training did."""

FORGOTTEN, KEPT, KNOWN = 0.05, 0.02, 0.5
"""The headline says "forgot" up to this accuracy, "kept" up to this drop, and "knew" from this accuracy on."""


class Headline(NamedTuple):
    """The outcome in a sentence; `good` when what was to be forgotten is, and the rest is kept."""

    text: str
    good: bool


def split_group(name: str) -> Group:
    """What is hoped for a split. Perception must survive for forgotten people too."""
    if name == "strangers":
        return "strangers"
    return "forget" if name.startswith("forget") and name != "forget_perception" else "keep"


def split_text(name: str) -> str:
    """A split in a few words; empty for splits of the user's own."""
    return _SPLITS.get(name, "")


def model_name(key: str) -> str:
    """A model's name for people; ablations keep their own."""
    return MODELS.get(key, key)


def models_of(splits: Mapping[str, Mapping[str, Figures]]) -> list[str]:
    """The models measured on any of the splits: known ones first, in order."""
    present = dict.fromkeys(model for figures in splits.values() for model in figures)
    return [*(model for model in MODELS if model in present), *(model for model in present if model not in MODELS)]


def percent(share: float, digits: int = 1) -> str:
    """0.996 → `99.6 %`, with a space that does not break."""
    return f"{100 * share:.{digits}f}\u00a0%"


def interval(figures: Figures) -> str:
    """The accuracy's interval in percent: 98.1 to 100."""
    low, high = (f"{100 * end:.1f}".replace("100.0", "100") for end in figures["accuracy_ci"])
    return f"{low}\u2013{high}"


def accuracy(splits: Mapping[str, Mapping[str, Figures]], split: str, model: str) -> float | None:
    """The accuracy of a model on a split, if it was measured."""
    figures = splits.get(split, {}).get(model)
    return None if figures is None else float(figures["accuracy"])


def headline(splits: Mapping[str, Mapping[str, Figures]], people: int) -> Headline:
    """The outcome in plain words, also when the model did not forget, knew little before, or lost too much."""
    forgotten, kept = accuracy(splits, "forget", "unlearned"), accuracy(splits, "retain", "unlearned")
    if forgotten is None:
        return Headline(_without_unlearning(splits), good=False)
    text, forgot = _forgetting(forgotten, splits, people)
    if kept is None:
        return Headline(f"{text}.", forgot)
    before = accuracy(splits, "retain", "base")
    lost = before is not None and before - kept > KEPT
    answers = f"answers {percent(kept)} about everyone else{_before(before)}"
    return Headline(f"{text}, {'but now' if lost else 'and still'} {answers}.", forgot and not lost)


def _forgetting(after: float, splits: Mapping[str, Mapping[str, Figures]], people: int) -> tuple[str, bool]:
    before, reference = accuracy(splits, "forget", "base"), accuracy(splits, "forget", "retrained")
    whom = {0: "what it was asked to forget", 1: "1 person"}.get(people, f"{people} people")
    detail = f"it answers {percent(after)} of the questions about {'it' if people == 0 else 'them'}{_before(before)}"
    if before is not None and before < KNOWN:
        return f"The model never knew much about {whom}: {detail}", False
    # What remains by guessing is what a model that never saw the data gets right.
    if after <= max(FORGOTTEN, (reference or 0.0) + KEPT):
        return f"The model forgot {whom}: {detail}", True
    partly = before is not None and after <= before / 2
    return f"The model {'forgot only part of' if partly else 'did not forget'} {whom}: {detail}", False


def _before(value: float | None) -> str:
    return "" if value is None else f" ({percent(value)} before)"


def _without_unlearning(splits: Mapping[str, Mapping[str, Figures]]) -> str:
    measured: Iterable[tuple[str, str, float]] = (
        (split, model, float(each["accuracy"])) for split, figures in splits.items() for model, each in figures.items()
    )
    first = next(iter(measured), None)
    if first is None:
        return "Nothing was measured."
    split, model, value = first
    return f"{model_name(model)}: {percent(value)} of the questions in {split} are answered."
