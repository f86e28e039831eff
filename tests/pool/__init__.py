"""What happens inside a daemon process, piece by piece, without starting one."""
