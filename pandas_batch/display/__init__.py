"""What a run looks like: the panel, the static account, a bar, a line in the log."""
