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
