"""What makes NumPy faster: the process's settings, threads, shards and entrywise loops."""
