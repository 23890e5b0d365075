"""Explore: scenarios made up by seed run on two kernels; every difference that a seed does not explain is the kernel's."""
