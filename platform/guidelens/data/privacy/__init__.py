"""Consent in time, retention, forgetting and key rotation."""
