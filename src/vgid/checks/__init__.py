"""What is looked at before training: model, rows, gradients, memory, and whether the model knows what it is to forget."""
