"""Network namespaces and what is set up in them: links, routes, tunnels, firewalls, sysctls."""
