"""Ingest's parts: the lake, validation, images, pseudonyms, visits, labels and adapters."""
