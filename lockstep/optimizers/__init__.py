"""What each library's optimizers do, measured, and the lines to write.

It knows the oracle and the workers, and must show nothing itself.
"""
