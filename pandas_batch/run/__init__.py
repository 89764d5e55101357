"""The handle of a run and the frame: start, wait, join, retry, recover, compare (`pandas_batch.runs` is a function)."""
