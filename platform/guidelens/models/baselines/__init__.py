"""Classic recommenders under one interface: the peers of every comparison, and light enough for fallbacks."""
