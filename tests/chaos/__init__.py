"""The lane's promise under seeded faults at random moments: `python -m chaos` in tests/.

`plan.py` draws the faults from a seed, `faults.py` strikes, `load.py` submits meanwhile,
`observer.py` sees every result become visible, `fleet.py` restarts what ended, `verdict.py` says
what was kept of the promise. `run.py` puts them together.
"""
