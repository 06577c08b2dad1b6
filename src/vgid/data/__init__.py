"""Examples, conversations and batches: everything between data files and tensors."""
