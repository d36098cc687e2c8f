"""Fine-tunes the encoder on requests with known answers; START READING AT `run.py`.

examples.py makes examples of requests and mines what is not relevant but ranked high, batches.py
orders them (both pure); heldout.py judges a model while it learns, trainer.py runs
sentence-transformers' trainer; judging.py compares before and after as served, card.py and
publishing.py write down and publish, or put aside, what came of it.
"""
