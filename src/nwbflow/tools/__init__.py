"""Whole-file jobs."""
