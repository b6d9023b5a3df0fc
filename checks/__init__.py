"""What `make check` runs beside ruff, mypy and import-linter: the lock, the layout, the imports those cannot see, the manifests."""
