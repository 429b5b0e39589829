"""Measurements: they print figures, and are not timed tests."""
