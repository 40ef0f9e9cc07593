"""Read and write the run store: file systems, atomic files, Parquet shards and their schemas, claims, rows of trials."""
