"""Network namespaces and their setup: links, routes, tunnels, firewalls, sysctls."""
