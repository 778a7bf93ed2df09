"""Who is measured: this library, JAX and PyTorch, each in its best ordinary form.

A peer is a function that a child process calls once; it returns the actions that the process then
carries out, see `harness.protocol`. Nothing here imports another framework than its own.
"""
