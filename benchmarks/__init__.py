"""Ratios against named peers, interleaved in one run. Never part of the tests: clocks lie on busy machines."""
