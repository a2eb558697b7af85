"""The three folders as text: the mirror's rules, and the columns.

It knows names and paths, and must run nothing of what it reads.
"""
