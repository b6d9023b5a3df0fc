"""What an ingest does: stages records on workers, judges and settles them against the lake, commits once."""
