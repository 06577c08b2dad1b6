"""Audits: every attack on an unlearned model, beside its controls, and a verdict by rules fixed in advance."""
