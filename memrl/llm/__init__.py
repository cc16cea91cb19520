"""Language models behind one small interface: local ones, servers, scripts, recordings."""
