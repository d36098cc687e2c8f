"""A graph gives what the model gives, or is not used."""

import pytest
import torch

from reclane_worker.compiled import compiled

PIECES = 50
TABLE = torch.nn.functional.normalize(
    torch.arange(PIECES * 4, dtype=torch.float32).view(PIECES, 4).cos()
)


def mean(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask.unsqueeze(-1).float()
    return (TABLE[ids] * weights).sum(1) / weights.sum(1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (6, 2), (40, 30)])
def test_a_graph_gives_the_same_vectors_for_any_shape(shape: tuple[int, int]) -> None:
    graph = compiled(mean, PIECES)
    assert isinstance(graph, torch.jit.ScriptFunction)
    ids = torch.randint(0, PIECES, shape)
    mask = torch.ones_like(ids)
    mask[0, shape[1] // 2 + 1 :] = 0
    torch.testing.assert_close(graph(ids, mask), mean(ids, mask))


def by_length(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return mean(ids, mask) * float(mask.shape[1])  # the tracer keeps the length it saw


def by_row(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.stack([mean(ids[:1], mask[:1])[0] if row else TABLE[0] for row in range(len(ids))])


def raising(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    if torch.jit.is_tracing():  # type: ignore[no-untyped-call]
        raise RuntimeError("this model cannot be traced")
    return mean(ids, mask)


@pytest.mark.parametrize("forward", [by_length, by_row, raising])
def test_what_a_graph_would_get_wrong_runs_operator_by_operator(forward: object) -> None:
    assert callable(forward)
    assert compiled(forward, PIECES) is forward
