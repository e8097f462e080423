"""What `msr bench chaos` and tests/faults/ are made of: programs to kill, a network to cut, what
is sent, and the verdict.
"""
