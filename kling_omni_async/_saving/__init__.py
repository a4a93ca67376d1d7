"""Brings images whole into the user's own storage; knows nothing of polling."""
