"""Neural architecture search: spaces, NSGA-II, surrogates and the NACHOS loop. Start with `nachos.py`."""
