"""`msr doctor`: checks everything that a deployment needs, and says what to do about each fault.

`findings.py` runs the checks, so that none stops or blocks the others. The checks are in
`machine.py`, `service.py` and `artifacts.py`; the command has their order.
"""
