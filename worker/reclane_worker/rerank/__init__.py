"""The second look: a model reads a request and an item together and orders the best candidates.

`reranking.py` is where the main path calls in; `loading.py` chooses the kind of model.
"""
