"""The benchmark's table, page and arithmetic, on the results of a run that was made before."""
