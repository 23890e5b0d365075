"""Kernels: from a specification such as `6.12` to a bootable image and its modules.

`kernels.spec.resolve` is the entry point; `kernels.cache.Cache` keeps what was fetched and built.
"""
