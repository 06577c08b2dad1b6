"""What several benchmarks share: files, pictures, values of rows, truth ratios."""
