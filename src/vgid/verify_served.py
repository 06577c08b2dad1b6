"""`vgid verify-served`: whether an endpoint serves the unlearned weights, by a few questions that both models are asked too."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vgid.attacks.asking import MAX_NEW_TOKENS
from vgid.attacks.base import Endpoint
from vgid.attacks.served import ServedConfig, answers, check_endpoint
from vgid.data.example import Example
from vgid.data.neutral import neutral_examples
from vgid.data.sources import Rows, rows_of
from vgid.errors import DataError
from vgid.evaluation.generation import generate
from vgid.evaluation.metrics import key_fact, normalise
from vgid.models.export import release
from vgid.models.loading import check_model_path, load_model

ASKED = 8
"""Forget rows, and neutral questions, that are asked at most; chosen by hand, so that a server needs seconds."""
NEARER = 0.5
"""How far from the middle between the two models' answers (0) to one of them (1) a served answer must lie to count for it; by hand."""
CLOSE = 0.6
"""Similarity from which on a served answer counts as the one that both models give: a close match by the manual of difflib."""
EXCEPTIONS = 0.25
"""Largest share of answers that may deviate, since servers round differently; chosen by hand. With fewer than four, none may."""

Verdict = Literal["unlearned", "base", "other", "undecided"]
VERDICTS: dict[Verdict, str] = {
    "unlearned": "the endpoint serves the unlearned weights",
    "base": "the endpoint serves the weights before unlearning",
    "other": "the endpoint serves something else",
    "undecided": "it cannot be decided: both models answer alike",
}
ADVICE: dict[Verdict, str] = {
    "unlearned": "nothing to do",
    "base": "serve the merged model, or give the adapter's name with --served-model; look for ignored modules in the server's log",
    "other": "check which model and adapter are served, the chat template, and the resolution of pictures",
    "undecided": "give forget rows that the base answers and the unlearned model does not, and check --model and --base",
}


class Votes(NamedTuple):
    """What the served answers say: `deciding` of them are to questions that the models answer differently, `common` to the others."""

    deciding: int
    as_unlearned: int
    as_base: int
    common: int
    as_both: int


def verify_served(
    endpoint: Endpoint,
    model: str,
    base: str,
    forget: Rows,
    *,
    turns: Literal["last", "all"] = "last",
    image_root: str | Path | None = None,
) -> dict[str, Any]:
    """Compare the answers of a server with those of the unlearned model and of the base, which are loaded here, one after the other.

    Args:
        endpoint: the server.
        model: folder or hub id of the unlearned model.
        base: the model before unlearning.
        forget: forget rows; at most `ASKED` of them are asked, at equal distances, with as many neutral questions about drawn pictures.
        turns: of a conversation, `last` takes the last answer; `all` makes a row of each answer.
        image_root: folder that image paths are relative to and must stay in; None for the data file's own.

    Returns:
        The report (schema `vgid.verify-served/1`): verdict, counts of answers, and counts of forget rows whose fact each of the three
        states; no question and no answer.

    Raises:
        ConfigError: the URL is not an http or https URL.
        DataError: there are no forget rows.
        ModelError: a model cannot be loaded.
        RunError: the endpoint cannot be reached, refuses, or replies in another form.
    """
    check_endpoint(endpoint)
    for path in (model, base):
        check_model_path(path)
    rows = rows_of(forget, name="forget", turns=turns, image_root=image_root)
    if not rows:
        raise DataError("there are no forget rows to ask", expected="at least one row")
    count = min(ASKED, len(rows))
    probes = [rows[number * len(rows) // count] for number in range(count)]
    asked = [*probes, *neutral_examples(ASKED, seed=0, pictures=1.0)]
    served = answers(endpoint, asked, ServedConfig())  # first: a server that does not answer is known at once
    before, after = _said(base, asked), _said(model, asked)
    votes = count_votes(served, after, before)
    facts = {name: _facts(probes, said) for name, said in (("base", before), ("unlearned", after), ("served", served))}
    back = sum(theirs and not ours for theirs, ours in zip(facts["served"], facts["unlearned"], strict=True))
    verdict = judge(votes, back)
    return {
        "schema": "vgid.verify-served/1",
        "endpoint": endpoint.url,
        "served_model": endpoint.model,
        "model": model,
        "base": base,
        "verdict": verdict,
        "advice": ADVICE[verdict],
        "forget_rows": len(probes),
        "neutral_rows": len(asked) - len(probes),
        **votes._asdict(),
        "facts": {name: sum(stated) for name, stated in facts.items()},
        "facts_back": back,
    }


def count_votes(served: Sequence[str], unlearned: Sequence[str], base: Sequence[str]) -> Votes:
    """Count for which model each served answer speaks.

    Where the models answer differently, a served answer with similarities u and b to their answers, which have similarity s to each other,
    lies at (u − b) / (1 − s): 1 is the unlearned model's answer, −1 the base's, and another name in the same sentence is near 0.

    Args:
        served: the server's answers.
        unlearned: the unlearned model's.
        base: the base's, all to the same questions.

    Returns:
        The counts.
    """
    places, common = [], []
    for said, after, before in zip(*([normalise(text) for text in texts] for texts in (served, unlearned, base)), strict=True):
        if after == before:
            common.append(_similarity(said, after) >= CLOSE)
        else:
            places.append((_similarity(said, after) - _similarity(said, before)) / (1 - _similarity(after, before)))
    return Votes(len(places), sum(p > NEARER for p in places), sum(p < -NEARER for p in places), len(common), sum(common))


def judge(votes: Votes, facts_back: int = 0) -> Verdict:
    """Decide by the counts, and by the number of facts that the server states and the unlearned model does not: rounding explains none.

    Answers that both models give come first, since another model may have no fact to tell either.
    """
    if votes.common - votes.as_both > EXCEPTIONS * votes.common:
        return "other"
    if not votes.deciding:
        return "undecided"
    needed = (1 - EXCEPTIONS) * votes.deciding
    if votes.as_unlearned >= needed and not facts_back:
        return "unlearned"
    return "base" if votes.as_base >= needed else "other"


def _similarity(one: str, other: str) -> float:
    """The share of matching characters, in [0, 1], in any script; both directions, since difflib's depends on the order."""
    pairs = ((one, other), (other, one))
    return max(SequenceMatcher(None, *pair, autojunk=False).ratio() for pair in pairs)


def _said(path: str, rows: Sequence[Example]) -> list[str]:
    loaded = load_model(path)
    said = generate(loaded, rows, max_new_tokens=MAX_NEW_TOKENS)
    release(loaded.model)  # before the other one is loaded
    return said


def _facts(rows: Sequence[Example], said: Sequence[str]) -> list[bool]:
    """For each forget row, whether its answer states the fact; the neutral rows' answers come after these."""
    return [key_fact(text, row.keywords, row.answer) for row, text in zip(rows, said, strict=False)]
