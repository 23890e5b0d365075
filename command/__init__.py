"""Any command on any kernel: its files go in, a machine runs it, its output and results come back."""
