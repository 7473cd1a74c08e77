"""The vocabulary: frozen dataclasses, protocols and events. Standard library and numpy only."""
