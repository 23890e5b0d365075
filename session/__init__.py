"""pytest-xdist's session with kernels for workers, and the plugins that gather and recognise what its tests say."""
