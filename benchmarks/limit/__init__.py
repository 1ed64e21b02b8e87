"""The limit server: how fast this machine could do the same work, in C, and nothing else."""
