"""Runs: written down, posted once, polled, collected, merged, retried, recovered."""
