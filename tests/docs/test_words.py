"""Phrases that must not come back: riddles, archaisms, and former names. The message says where each stands and what to write."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.generated import by_hand
from tests.docs.markdown import ROOT

PHRASES = {
    r"(?<!there\s)\b(?:is|are|was|were) no (?!more\b|less\b|other\b|\w+er\b)\w+": "is not a …, has no …",
    r"\b(?:comes?|came) of it\b": "result",
    r"\bnobody (?:had|has|ever) looked\b": "held-out",
    r"\b(?:unless|so|not|as|be|being|is|are|was|were) told\b": "unless set otherwise, says, reported, distinguished",
    r"\btold (?:on|apart)\b": "distinguished",
    r'"""(?:Of|So many|Whose|By how much|From how many|What came)\b': "a sentence that reads alone",
    r"\bso many\b": "a number of, N",
    r"\bof one's own\b": "your own, custom",
    r"\bspar(?:ring|s)\b": "relearning adversary",
    r"\bbouts?\b": "period",
    r"\bschool(?:ing|ed)\b": "base training",
    r"\btails\b": "aligned positions",
    r"\btake_up\b|\bcarried\(": "load_state_dict, state_dict",
    r"\bput(?:_| )aside\b": "held out, split_validation",
    r"\blook(?:s|ed|ing)? after\b": "handle, your responsibility",
    r"\bflatter(?:s|ed|ing)?\b": "bias in favour of",
    r"\bfor want of\b|\bby a hair\b": "because there is no …, narrowly",
    r"\bkin (?:to|of)\b": "similar to",
    r"\btwins?\b": "reference",
    r"\bcontenders?\b": "entry",
    r"\beconomy\b": "memory saving",
    r"\bside_by_side\b": "in_parallel",
    r"\bkeep_differentiable\b": "disable_weight_repacking",
    r"\bin_short\b": "summarise_names",
    r"\bbelow a plain value\b": "below a scalar",
    r"\bgave no figures\b": "returned no metrics",
    r"\b(?:best|every|each|last|four|six) looks?\b": "evaluation",
    r"\bmethod\.(?:names|hold|states|sparring|anchors|moved)\b": "the setting's present name",
    r"\bbenchmarks/(?:results|step|evaluate|growth|sequence|common)\b": "perf/",
}
"""Regular expressions, each with what to write in its place; a space stands for any white space."""
IN_DOCUMENTS = {
    r"(?<![\w-])--(?:examine|sample|rows|limit|retrained)\b": "--max-rows, --reference",
    r"\bmemory\.py\b|\bvgid\.bench\b|\bvgid\.training\.(?:losses|seeds)\b": "the module's present name",
}
"""More of them, for documents only."""
EXEMPT = re.compile(r"derive_seed\(|\bRandom\(|_SEED = |^\s*\"(?:sparring|names|hold|states|anchors|moved)\": ")
"""Lines where an old word is a value that must not change (a random seed), or the key whose new name is given."""
DOCUMENTS = [
    path
    for path in [*(ROOT / f"{name}.md" for name in ("README", "CHANGELOG")), *sorted((ROOT / "docs").rglob("*.md"))]
    if path.name != "LOG.md"
]
PACKAGES = sorted({path.relative_to(ROOT / "src" / "vgid").parts[0] for path in (ROOT / "src" / "vgid").rglob("*.py")})


def phrases_in(text: str, phrases: dict[str, str]) -> Iterator[tuple[int, str, str]]:
    """Line, words and advice for every phrase in a text."""
    lines = text.splitlines()
    for pattern, instead in phrases.items():
        for found in re.finditer(pattern.replace(" ", r"\s+(?:#\s+)?"), text, re.IGNORECASE):
            number = text.count("\n", 0, found.start()) + 1
            if not EXEMPT.search(lines[number - 1]):
                yield number, " ".join(found[0].split()), instead


def report(path: Path, text: str, phrases: dict[str, str]) -> list[str]:
    """One line for each phrase in a file."""
    return [f"{path.relative_to(ROOT)}:{line}: {words!r} → {instead}" for line, words, instead in sorted(phrases_in(text, phrases))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents(path: Path) -> None:
    found = report(path, by_hand(path), PHRASES | IN_DOCUMENTS)
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("package", PACKAGES)
def test_code(package: str) -> None:
    place = ROOT / "src" / "vgid" / package
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    found = [line for path in files for line in report(path, path.read_text("utf-8"), PHRASES)]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The recipe is no mapping.", ["is no mapping"]),
        ("The recipe\n    is no\n    mapping.", ["is no mapping"]),
        ("# what is\n# no mapping", ["is # no mapping"]),
        ("There is no model, it is no longer needed and no wider, and there\nare no rows.", []),
        ('"""Of a row."""', ['"""Of']),
        ('seed = derive_seed(seed, "sparring")', []),
        ('    "sparring": "adversary",', []),
        ("method.sparring", ["sparring", "method.sparring"]),
    ],
)
def test_phrases_are_found(text: str, found: list[str]) -> None:
    assert sorted(words for _, words, _ in phrases_in(text, PHRASES)) == sorted(found)
