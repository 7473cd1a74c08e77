"""Mending files that other programs left broken: what can be read becomes a new, sound file; what can't is named."""
