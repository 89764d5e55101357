"""A server on loopback that speaks the Message Batches API."""
