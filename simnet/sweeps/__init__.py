"""Many runs: values times seeds, on processes, Ray or Dask."""
