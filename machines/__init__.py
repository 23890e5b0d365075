"""Whole machines, and more of them: one over ssh, distribution machines by Vagrant, other hosts as builders."""
