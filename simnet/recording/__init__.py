"""What happened in a run, row by row, into Parquet tables."""
