"""What a port does otherwise: probes, replay, the search for what explains it, the verdict.

It knows the oracle, the mistakes and the workers, and must not know how anything looks.
"""

from lockstep.diagnosis.driving import Port, check
from lockstep.diagnosis.naming import Diagnosis, diagnose
from lockstep.diagnosis.policy import policy
from lockstep.diagnosis.probes import Probe
from lockstep.diagnosis.verdict import Report

__all__ = ["Diagnosis", "Port", "Probe", "Report", "check", "diagnose", "policy"]
