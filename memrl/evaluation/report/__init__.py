"""One report over finished run folders: table, results.json, results.csv and one HTML page.

Nothing is played again: all numbers come from what the runs have written down.
"""
