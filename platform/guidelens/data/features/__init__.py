"""Shopper and product rows for the feature store, and what is said about them. Knows nothing of Feast."""
