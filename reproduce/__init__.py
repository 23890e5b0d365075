"""A test as one file that runs without pytest, and the folder of a bug report around it."""
