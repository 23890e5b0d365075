"""pytest-xdist's session with kernels as workers, and the plugins that gather and recognise its tests' reports."""
