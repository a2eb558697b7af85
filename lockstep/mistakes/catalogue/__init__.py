"""One folder a mistake: `mistake.py`, and a diff for each framework."""
