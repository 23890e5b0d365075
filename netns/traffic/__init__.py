"""TCP connections, and how they close."""
