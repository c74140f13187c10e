"""Triton kernels, one to a file. Only the op beside its plain reference imports one, and only where it runs."""
