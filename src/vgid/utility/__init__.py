"""General utility: what a model can do that has nothing to do with the people it knows."""
