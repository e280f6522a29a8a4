"""A run's directory drawn: tables read, plots, the page, two runs compared."""
