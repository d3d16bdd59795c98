"""What a configuration costs: counted work, divided by a machine's rates."""
