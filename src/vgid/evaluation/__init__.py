"""Figures about a model: what it answers, and how sure they are."""
