"""General utility: what a model can do besides answering about the people it knows."""
