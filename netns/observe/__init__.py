"""The kernel, observed from outside: captures, counters, drops, slab caches, BPF, its log."""
