"""Training: losses, steps, optimizers, checkpoints."""
