"""Array kernels: numba, numpy and each other only; no I/O; status codes, not exceptions."""
