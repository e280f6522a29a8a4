"""Who does the runs of a sweep: processes of this machine, Ray or Dask."""
