"""Experiments of papers, each one command: a file with one function that measures, and writes results, page and tables."""
