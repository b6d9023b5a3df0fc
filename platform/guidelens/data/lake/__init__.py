"""The lake: Parquet tables, the manifests that say what is live, and everything that happens to them afterwards."""
