"""How policies are scored: one path for all of them."""
