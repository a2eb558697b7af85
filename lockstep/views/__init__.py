"""Everything that a person sees: terminal, HTML, JSON.

It knows what was found, and must find nothing itself.
"""
