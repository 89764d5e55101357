"""The client layer: batches without pandas, in a thread and in a loop alike."""
