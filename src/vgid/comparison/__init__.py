"""Compares methods: the same people, order of rows, LoRA scope and budget for all, with statistics over people and seeds."""
