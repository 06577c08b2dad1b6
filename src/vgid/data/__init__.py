"""From files to tensors: examples, conversations, batches."""
