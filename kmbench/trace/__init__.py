"""Recorded event streams: kmbench's own trace files, captures of real kernels, their scoring."""
