"""Search over a release's products in words, by photo and by both. Imports nothing here: the ingress reads messages.py without torch."""
