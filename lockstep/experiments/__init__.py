"""What `lockstep run` does: the checks, a planted mistake, not zeroing.

It knows all that measures, and must show nothing itself.
"""
