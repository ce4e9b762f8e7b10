"""What helmops costs, beside its peers in the same run. `python -m benchmarks` prints one table."""
