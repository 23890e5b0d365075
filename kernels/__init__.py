"""Kernels: from a specification such as `6.12` to an image and modules that can be booted.

`kernels.spec.resolve` is the way in; `kernels.cache.Cache` keeps what was fetched and built.
"""
