"""Runs a plan: assembly, back-pressure, cancellation, verification. Nothing format-specific."""
