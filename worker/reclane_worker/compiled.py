"""A model as one graph that runs outside Python.

A forward pass is some two hundred operators. Called from Python one by one, each takes the
interpreter lock anew, and waits whenever another thread is in Python: beside the lane's thread a
batch takes half as long again. A graph takes the lock once. On CPU only: on CUDA calls only
queue kernels, and the driver's own graphs are the better way.
"""

import logging
import warnings
from collections.abc import Callable
from typing import Final

import torch

_log = logging.getLogger(__name__)

Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Token ids and mask, both (batch, tokens), to vectors (batch, dim)."""

_TOLERANCE: Final = 1e-5
_TRACED_ON: Final = [5, 3, 7]  # lengths of texts in one batch
_TRIED_ON: Final = ([4], [9, 9], [2, 17, 6, 11, 17])


@torch.inference_mode()
def compiled(forward: Forward, pieces: int) -> Forward:
    """`forward` as a graph; `forward` itself where the model does not allow that, or where the
    graph gives other vectors for batches of other shapes.

    Its parameters must need no gradients; the graph shares them. `pieces`: size of the vocabulary.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is tried below
            example = _batch(_TRACED_ON, pieces)
            graph: Forward = torch.jit.trace(  # type: ignore[no-untyped-call]
                forward, example, check_trace=False
            )
        for lengths in _TRIED_ON:
            ids, mask = _batch(lengths, pieces)
            wanted = forward(ids, mask)
            for _ in range(2):  # the first two runs also optimise the graph
                if not torch.allclose(graph(ids, mask), wanted, atol=_TOLERANCE):
                    raise ValueError("its vectors depend on the shapes that it was traced on")
    except Exception as error:
        _log.info("the model runs operator by operator, no graph: %s", type(error).__name__)
        return forward
    return graph


def _batch(lengths: list[int], pieces: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask of texts of such lengths, padded on the right."""
    longest = max(lengths)
    ids = torch.arange(len(lengths) * longest).view(-1, longest) * 7 % pieces
    mask = torch.tensor([[1] * length + [0] * (longest - length) for length in lengths])
    return ids, mask
