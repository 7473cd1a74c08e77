"""Data that live in other files: where they are, what they are, and whether they still are."""
