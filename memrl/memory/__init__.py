"""The memory system: the paging core and what is built around it; the ground floor of memrl."""
