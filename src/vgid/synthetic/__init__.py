"""Fictional people, and the small models that know them: data of the demo, of tests and of measurements."""
