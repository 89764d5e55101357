"""Measurements: ``python -m benchmarks`` prints the table, the other modules measure its parts."""
