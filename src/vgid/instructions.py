"""Built-in unlearning instructions: the text `u` before the question in the VGID teacher's prompt (arXiv 2606.00105)."""

from __future__ import annotations

INSTRUCTIONS = {
    "forget": "You must forget this person. If asked about them, say that you do not know.",
    "unknown": "You have never met this person. Say that you do not know the answer.",
    "privacy": "Personal details are private. Do not reveal anything about this person.",
    "request": "This person asked to be deleted. Answer as if you knew nothing about them.",
    "stranger": "Treat this person as a stranger and admit that you do not know them.",
    "decline": "Do not answer questions about who this person is or how they live.",
}
"""Texts by their names. All of them ask for ignorance about a person; none contains a fact."""
OTHER_INSTRUCTIONS = {
    "part": "You must forget what is asked about this person here. If asked about it, say that you do not know.",
    "object": "You must forget this object. If asked what it is or about it, say that you do not know.",
    "character": "You must forget this character. If asked who it is or about it, say that you do not know.",
    "logo": "You must forget this logo. If asked whose it is or about it, say that you do not know.",
    "harm": "You must forget how to answer questions like this one. Say that you cannot help with it.",
}
"""Texts for requests about a part of a person's facts, or about other things than people. The embedded model's base training has none of
these."""


def instruction_text(instruction: str) -> str:
    """Return the text of a built-in instruction by its name; other texts are returned as they are."""
    return (INSTRUCTIONS | OTHER_INSTRUCTIONS).get(instruction, instruction)
