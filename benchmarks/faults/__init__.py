"""The parts of `msr bench chaos` and tests/faults/: processes to kill, a network to cut,
interactions to send, and the consistency check.
"""
