"""Results for people: a page and tables for the terminal."""
