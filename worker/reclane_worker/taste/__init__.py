"""Recommending from behaviour: what is learnt of interactions, and what a history is worth by it.

interactions.py reads who did what; neighbours.py learns which items go together; weighing.py how
much each signal counts; learning.py does it all for a catalog; signals.py is what a catalog keeps
and what serves requests; trial.py measures it on interactions held out.
"""
