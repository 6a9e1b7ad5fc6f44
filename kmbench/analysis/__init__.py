"""Metrics, comparisons and tables over stored results."""
