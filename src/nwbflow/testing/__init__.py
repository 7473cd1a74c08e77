"""Simulators and conformance suites, shipped for users' own tests."""
