"""What the benchmarks share: workloads, child processes, rounds, statistics and reports."""
