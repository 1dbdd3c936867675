"""How a PyTorch module is watched while it runs: `steps.py`, then the rules, then `recorder.py`, in that order."""
