"""Each framework in a process of its own, and the port's side of it.

It knows problems, and must not know what is right.
"""
