"""Tables and figures from stored rows."""
