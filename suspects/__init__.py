"""Which functions changed from one kernel to another, and which tests execute them."""
