"""Shared by several benchmarks: files, images, values of rows, and truth ratios."""
