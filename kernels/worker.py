"""What a guest runs for pytest-xdist: xdist's own remote module, from its compiled form.

Its source would be sent and compiled, which takes most of a second under emulation.
"""
# ruff: noqa: F821
if __name__ == "__channelexec__":
    import importlib.util
    import os

    if "KDRIFT_PROJECTS" in os.environ:
        from machines.relocated import RelocatedChannel

        channel = RelocatedChannel(channel)
    exec(importlib.util.find_spec("xdist.remote").loader.get_code("xdist.remote"))
