"""Simulation of generated accelerators against the golden model, word for word."""
