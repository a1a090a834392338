"""Benchmarks: this library beside what one would write, or use, without it.

``python -m benchmarks --help`` says how to run them; with ``--results benchmarks/RESULTS.md`` a run
is written down. ``rows/`` holds one module for each row of the table, ``core/`` what they share.
"""
