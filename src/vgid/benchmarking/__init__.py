"""Running benchmarks: reading their data, asking models, keeping answers, and unlearning their forget sets."""
