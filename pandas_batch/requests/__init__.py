"""Rows to requests: options, templates, attachments, schemas, fingerprints, and the bytes on the wire."""
