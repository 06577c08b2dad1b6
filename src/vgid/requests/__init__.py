"""Deletion requests: from a folder of rows to a model that forgot them, and the record that says so."""
