"""Runs sentence-transformers' trainer: planned batches, bounded time, early stopping."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainerCallback

from reclane_worker.encoder import Role
from reclane_worker.training.batches import Row
from reclane_worker.training.heldout import MEASURE, NAME, HeldOut

SCALE: Final = 20.0  # of cosines before the softmax, as in sentence-transformers
WARM_UP: Final = 0.1
EVALUATIONS: Final = 6
PATIENCE: Final = 2  # evaluations without a gain before it stops
_METRIC: Final = f"eval_{NAME}"
_SPENT: Final = "spent.json"

Report = Callable[[str], None]
TextOf = Callable[[Row], tuple[str, str, str]]
"""The texts of a row: its request, its item, its wrong item."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to learn. `prompts` are the model's own, of requests and of items."""

    learning_rate: float
    max_tokens: int
    minutes: float
    seed: int
    prompts: Mapping[Role, str]


def learn(
    model: SentenceTransformer,
    batches: Sequence[Sequence[Row]],
    text_of: TextOf,
    held_out: HeldOut,
    recipe: Recipe,
    folder: Path,
    report: Report,
) -> None:
    """Train `model` in place, on from the last checkpoint in `folder`, and leave it as it was
    when the held-out requests were answered best."""
    _without_dropout(model)
    whole = model.max_seq_length
    model.max_seq_length = min(recipe.max_tokens, whole or recipe.max_tokens)
    trainer = _Trainer(
        model=model,
        args=_arguments(folder, recipe, len(batches), model.device),
        train_dataset=Dataset.from_dict({"batch": range(len(batches))}),
        loss=MultipleNegativesRankingLoss(model, scale=SCALE),
        evaluator=held_out,
        data_collator=_Collator(model, batches, text_of, recipe.prompts),
        callbacks=[_Bounds(folder, recipe.minutes * 60, report)],
    )
    trainer.remove_callback(PrinterCallback)  # it writes to stdout
    try:
        trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    finally:
        model.max_seq_length = whole
    model.eval()


def _without_dropout(model: SentenceTransformer) -> None:
    """Dropout costs a third of the time on CPU, and few epochs do not need it."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def _arguments(
    folder: Path, recipe: Recipe, steps: int, device: torch.device
) -> SentenceTransformerTrainingArguments:
    every = max(1, math.ceil(steps / EVALUATIONS))
    return SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,  # the plan holds them all
        per_device_train_batch_size=1,  # a row of the data is a batch of the plan
        batch_sampler=_in_order,
        learning_rate=recipe.learning_rate,
        warmup_steps=math.ceil(WARM_UP * steps),
        seed=recipe.seed,
        data_seed=recipe.seed,
        use_cpu=device.type == "cpu",
        bf16=device.type == "cuda" and torch.cuda.is_bf16_supported(),
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=_METRIC,
        greater_is_better=True,
        logging_steps=every,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
    )


def _in_order(dataset: Any, **_: Any) -> DefaultBatchSampler:
    return DefaultBatchSampler(SequentialSampler(dataset), batch_size=1, drop_last=False)


class _Trainer(SentenceTransformerTrainer):
    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None: it copies texts of the training data into the model's card."""


class _Collator(SentenceTransformerDataCollator):
    """A batch of the plan as token ids: requests, items, wrong items."""

    def __init__(
        self,
        model: SentenceTransformer,
        batches: Sequence[Sequence[Row]],
        text_of: TextOf,
        prompts: Mapping[Role, str],
    ) -> None:
        roles: list[Role] = ["query", "document", "document"]
        columns = {f"{number}_{role}": prompts[role] for number, role in enumerate(roles)}
        super().__init__(model.preprocess, prompts=columns)
        self._columns = list(columns)
        self._batches = batches
        self._text_of = text_of

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        (one,) = features
        texts = map(self._text_of, self._batches[one["batch"]])
        return super().__call__([dict(zip(self._columns, row, strict=True)) for row in texts])


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint: the trainer writes its state last."""
    whole = [
        state.parent for state in folder.glob("checkpoint-*/trainer_state.json") if _read(state)
    ]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None


def _read(path: Path) -> Any:
    """A JSON file's content; None of one that was cut short."""
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


class _Bounds(TrainerCallback):
    """Ends training when its time is over or held-out requests gain no more, and tells how it
    goes. What it has to know after a kill is in the folder of the checkpoints."""

    def __init__(self, folder: Path, most_s: float, report: Report) -> None:
        self._spent = folder / _SPENT
        self._most_s = most_s
        self._report = report
        self._before_s = 0.0
        self._started = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step and self._spent.is_file():
            self._before_s = float((_read(self._spent) or {}).get("seconds", 0.0))
            self._report(f"on from step {state.global_step} of {state.max_steps}")
        self._started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        over = self._seconds() >= self._most_s
        if over or state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = control.should_log = True
        if over and state.global_step < state.max_steps:
            control.should_training_stop = True
            self._report(f"its minutes are over after {state.global_step} steps")

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        figures = [row[_METRIC] for row in state.log_history if _METRIC in row]
        losses = [row["loss"] for row in state.log_history if "loss" in row]
        self._report(
            f"step {state.global_step} of {state.max_steps}, {self._seconds():.0f} s: held out "
            f"{MEASURE} {figures[-1]:.3f}" + (f", loss {losses[-1]:.3f}" if losses else "")
        )
        if is_spent(figures):
            control.should_training_stop = True
            self._report("held-out requests gain no more: it stops")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._spent.write_text(json.dumps({"seconds": self._seconds()}), "utf-8")

    def _seconds(self) -> float:
        return self._before_s + time.monotonic() - self._started


def is_spent(figures: Sequence[float]) -> bool:
    """Whether the last PATIENCE evaluations were none of them better than those before. Pure."""
    earlier, last = figures[:-PATIENCE], figures[-PATIENCE:]
    return bool(earlier) and max(last) <= max(earlier)
