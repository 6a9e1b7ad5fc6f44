"""Sweeps: many runs over a grid of parameters, on any executor, repeatable and resumable."""
