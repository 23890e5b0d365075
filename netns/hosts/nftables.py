"""nft(8) without a process: a call of its library takes a fifth of the time.

Source: libnftables(3).
"""

import ctypes
import os
from functools import cache

_LIBRARY = "libnftables.so.1"
_SELECTED = 1024                            # FD_SETSIZE
_OPENED = 8                                 # the library has no more descriptors open at a time
_DEFAULT, _JSON = 0, 1 << 4                 # NFT_CTX_DEFAULT, NFT_CTX_OUTPUT_JSON


def library() -> ctypes.CDLL | None:
    """The library; None if it is not installed in this version, or would abort: its select(2) needs descriptors below 1024."""
    next_ones = [os.dup(0) for _ in range(_OPENED)]
    for descriptor in next_ones:
        os.close(descriptor)
    return _load() if max(next_ones) < _SELECTED else None


@cache
def _load() -> ctypes.CDLL | None:
    try:
        found = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    found.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(found, name).restype = ctypes.c_char_p
    return found


def run(library: ctypes.CDLL, text: str, json: bool) -> tuple[int, str, str]:
    """Run nft commands in the calling thread's network namespace: the status, standard output and standard error of nft(8)."""
    context = ctypes.c_void_p(library.nft_ctx_new(_DEFAULT))
    try:
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        library.nft_ctx_output_set_flags(context, _JSON if json else 0)
        status = 1 if library.nft_run_cmd_from_buffer(context, text.encode()) else 0
        return status, library.nft_ctx_get_output_buffer(context).decode(), library.nft_ctx_get_error_buffer(context).decode()
    finally:
        library.nft_ctx_free(context)
