"""Runs one case of kdrift on a machine without kdrift: Python 3.8 or newer, root, iproute2."""
