"""Who can play: heuristics, clairvoyant, learned."""
