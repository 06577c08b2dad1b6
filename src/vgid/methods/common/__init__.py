"""What several methods share: terms of a loss, kept outputs of the base, refusals, neurons and paths through them."""
