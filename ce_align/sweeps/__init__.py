"""Many configurations on many processes and machines, with the store as the truth."""
