"""Recordings: a journal that is the authority, and a file that is folded out of it."""
