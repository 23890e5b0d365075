"""TCP connections, and how they end."""
