"""Which kernel is the first that behaves differently: a search over packages, or over the commits of a kernel tree."""
