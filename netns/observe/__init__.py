"""What the kernel does, seen from outside: captures, counters, drops, slab caches, BPF, its log."""
