"""Results in words: names for models and splits, numbers as people read them, and the headline of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

Figures = Mapping[str, Any]
"""The figures of one model on one split: n, accuracy, rouge_l, probability, refusal_rate, accuracy_ci; shares lie in [0, 1]."""
Group = Literal["forget", "keep", "strangers"]
"""What is hoped for a split: that it is forgotten, that it is kept, or that it is refused as before."""

MODELS = {"base": "Before", "unlearned": "Unlearned", "retrained": "Retrained", "finetuned": "Fine-tuned"}
"""Models in the order in which they are shown, with their names."""
GROUPS: dict[Group, str] = {
    "forget": "To be forgotten",
    "keep": "To be kept",
    "strangers": "Never known",
}
"""Groups of splits in the order in which they are shown, with their labels."""
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
    "learned": "rows that were trained on",
    "left_out": "rows that were left out, as a control",
    "strangers": "people the model never met: it should say that it does not know",
}
OTHER_PROMPTS = ("forget_views", "forget_reworded", "forget_text")
"""Splits that ask for forgotten facts with other pictures, in other words or without a picture."""

# Conventions of the headline, not calibrated: they choose words and decide nothing.
FORGOTTEN = 0.05
"""Largest accuracy on `forget`, in [0, 1], that is called forgotten; a retrained model may raise it."""
KEPT = 0.02
"""Largest drop of accuracy on `retain`, in [0, 1], that is called kept; also how far above a retrained model is called forgotten."""
KNOWN = 0.5
"""Least accuracy of the base on `forget`, in [0, 1], for which forgetting is spoken of at all."""


class Headline(NamedTuple):
    """The result of a run in a sentence.

    Attributes:
        text: the sentence.
        good: whether the model forgot what it should and kept the rest.
    """

    text: str
    good: bool


def split_group(name: str) -> Group:
    """The group of a split; what pictures of forgotten people show must be kept too."""
    if name == "strangers":
        return "strangers"
    return "forget" if name.startswith("forget") and name != "forget_perception" else "keep"


def split_text(name: str) -> str:
    """A split in a few words; empty for the splits of a user."""
    return _SPLITS.get(name, "")


def model_name(key: str) -> str:
    """The name of a model as it is shown; ablations keep theirs."""
    return MODELS.get(key, key)


def models_of(splits: Mapping[str, Mapping[str, Figures]]) -> list[str]:
    """The models that were measured on any split: those of `MODELS` first, in their order."""
    present = dict.fromkeys(model for figures in splits.values() for model in figures)
    return [*(model for model in MODELS if model in present), *(model for model in present if model not in MODELS)]


def people_in_words(count: int) -> str:
    """A number of people for a sentence: "one person", "3 people"."""
    return "one person" if count == 1 else f"{count} people"


def percent(share: float, digits: int = 1) -> str:
    """Write a share in percent: 0.996 becomes `99.6 %`, with a space that does not break."""
    return f"{100 * share:.{digits}f}\u00a0%"


def interval(figures: Figures) -> str:
    """The interval of the accuracy in percent, such as `98.1–100`."""
    low, high = (f"{100 * end:.1f}".replace("100.0", "100") for end in figures["accuracy_ci"])
    return f"{low}\u2013{high}"


def accuracy(splits: Mapping[str, Mapping[str, Figures]], split: str, model: str) -> float | None:
    """Look up the accuracy of a model on a split.

    Args:
        splits: figures by split and model.
        split: name of the split.
        model: name of the model.

    Returns:
        The accuracy, in [0, 1]; None where it was not measured.
    """
    figures = splits.get(split, {}).get(model)
    return None if figures is None else float(figures["accuracy"])


def figure_cell(figure: Mapping[str, Any] | None) -> tuple[str, str]:
    """The value of a figure and its interval, as text; both are empty for None."""
    if figure is None:
        return "", ""
    value, interval = figure["value"], figure["interval"]
    text = f"{value:.3f}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"
    return text, "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as pairs of dotted name and value."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield name, ", ".join(map(str, value)) or "none"
    else:
        yield name, "none" if value is None or value == {} else str(value)


def headline(splits: Mapping[str, Mapping[str, Figures]], people: int) -> Headline:
    """The result of a run in a sentence, also when the model did not forget, knew little before, or lost too much.

    Args:
        splits: figures by split and model.
        people: number of forgotten people; 0 where it is not known.

    Returns:
        The sentence, and whether it is good news.
    """
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
    subject = {0: "what it was asked to forget", 1: "1 person"}.get(people, f"{people} people")
    detail = f"it answers {percent(after)} of the questions about {'it' if people == 0 else 'them'}{_before(before)}"
    if before is not None and before < KNOWN:
        return f"The model never knew much about {subject}: {detail}", False
    # What remains by guessing is what a model that never saw the data gets right.
    if after <= max(FORGOTTEN, (reference or 0.0) + KEPT):
        return f"The model forgot {subject}: {detail}", True
    partly = before is not None and after <= before / 2
    return f"The model {'forgot only part of' if partly else 'did not forget'} {subject}: {detail}", False


def _before(value: float | None) -> str:
    return "" if value is None else f" ({percent(value)} before)"


def _without_unlearning(splits: Mapping[str, Mapping[str, Figures]]) -> str:
    measured = ((split, model, float(each["accuracy"])) for split, figures in splits.items() for model, each in figures.items())
    first = next(measured, None)
    if first is None:
        return "Nothing was measured."
    split, model, value = first
    return f"{model_name(model)}: {percent(value)} of the questions in {split} are answered."
