"""Ask Claude about every row of a DataFrame, at half price, through the Message Batches API."""

__version__ = "0.1.0"
