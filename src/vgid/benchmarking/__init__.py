"""Runs benchmarks: reads their data, asks models, stores answers, and unlearns their forget sets."""
