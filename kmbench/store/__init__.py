"""Results on disk: Arrow schemas and the Parquet dataset of runs."""
