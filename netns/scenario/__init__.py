"""Scenarios of ./kdrift explore: a topology and steps as data, carried out in this process, and everything that can be seen of it."""
