"""What a port does otherwise: probes, replay, naming, verdict.

It knows the oracle, the workers and the mistakes, and must show nothing itself.
"""
