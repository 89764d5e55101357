"""The only door to the anthropic SDK, and what its answers and failures mean."""
