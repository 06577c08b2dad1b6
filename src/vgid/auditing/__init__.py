"""Audits: every attack on an unlearned model, its base and a reference, and a verdict by rules that were fixed before."""
