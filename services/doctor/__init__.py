"""`msr doctor`: looks at everything a deployment stands on, and says what to do about each.

How checks are run, so that none can stop or hang the others, is in `findings.py`; what is looked at
in `machine.py`, `service.py` and `artifacts.py`; in which order in `checks.py`.
"""
