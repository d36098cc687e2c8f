"""A training from its files to a published model, read top to bottom.

Everything before the trainer's checkpoints is the same each time it is done, so a training that
was killed does it again, except that the catalog, once built, stays in the working folder.
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reclane.errors import CatalogError, ItemsInvalid, ModelRejected, ModelUnusable
from reclane_worker.building import build_catalog
from reclane_worker.cases import Case, rankings, read_cases
from reclane_worker.catalog import Catalog, load_catalog
from reclane_worker.encoder import SentenceEncoder, load_encoder, resolve_folder
from reclane_worker.item_texts import ItemTexts
from reclane_worker.pipeline import Pipeline
from reclane_worker.reading import SourceItem
from reclane_worker.settings import WorkerSettings
from reclane_worker.training import card, judging, publishing
from reclane_worker.training.batches import Lengths, Row, plan_batches
from reclane_worker.training.blending import blend_best, weights_of
from reclane_worker.training.examples import Example, examples_of, split
from reclane_worker.training.heldout import MEASURE, NAME, HeldOut, pool
from reclane_worker.training.order import CHECKPOINTS, Order, identity_of, settle
from reclane_worker.training.texts import Asked, asked, count_tokens
from reclane_worker.training.trainer import Recipe, Report, learn

LEAST_REQUESTS = 10
Source = Callable[[], Iterable[SourceItem]]


@dataclass(frozen=True, slots=True)
class Base:
    """The model before training, and its catalog of the items."""

    settings: WorkerSettings
    encoder: SentenceEncoder
    folder: Path
    catalog: Catalog
    items: ItemTexts


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is learnt from, what is held out, and who judges in the end."""

    requests: list[Asked]
    examples: list[Example]
    held_out: HeldOut
    judges: list[Case]
    judged_on: str


def train(
    order: Order, settings: WorkerSettings, source: Source, report: Report
) -> judging.Verdict:
    """Fine-tune the model that the settings name, and publish it as `order.out`.

    Raises:
        ModelRejected: it is worse than before; it lies beside `out`, with the reason in its card.
        ModelUnusable: it cannot be trained, `out` exists, or the working folder holds another
            training.
        ItemsInvalid, CatalogError: the data cannot be used.
    """
    publishing.check_place(order.out)
    encoder = load_encoder(settings)
    if not isinstance(encoder, SentenceEncoder):
        raise ModelUnusable(f"{encoder.name} cannot be trained; name a sentence-transformers model")
    work = publishing.working_folder(order.out)
    identity = identity_of(order, encoder.name, encoder.revision)
    settle(work, identity, resume=order.resume)
    base = _base(order, settings, encoder, source, work, report)
    lesson = _lesson(order, base, report)
    before = judging.answered(lesson.judges, encoder, base.catalog, settings)
    trained, share = _trained(order, base, lesson, work, report)
    verdict, why = _judged(trained, base, lesson, before, report)
    facts = card.Facts(
        identity,
        card.licence_of(encoder.name, base.folder),
        (
            ("items", f"{len(base.catalog):,}"),
            ("requests learnt from", f"{len({one.request for one in lesson.examples}):,}"),
            ("examples", f"{len(lesson.examples):,}"),
            ("share of the trained weights", f"{share:g}"),
        ),
        lesson.judged_on,
    )
    (trained / card.CARD).write_text(card.card(facts, verdict, why), "utf-8")
    if why is not None or verdict is None:
        place = publishing.put_aside(trained, order.out)
        shutil.rmtree(work)
        raise ModelRejected(f"the trained model is worse: {why}; it is kept as {place}")
    publishing.publish(trained, order.out)
    shutil.rmtree(work)
    return verdict


def _base(
    order: Order,
    settings: WorkerSettings,
    encoder: SentenceEncoder,
    source: Source,
    work: Path,
    report: Report,
) -> Base:
    folder = order.items
    if not folder.is_dir():
        folder = work / "catalog"
        if not folder.exists():
            report("encoding the items with the model before training")
            build_catalog(source(), folder, encoder, fields=order.choices.fields)
    catalog = load_catalog("training", folder, encoder)
    model = resolve_folder(settings.model, settings.model_revision)
    return Base(settings, encoder, model, catalog, ItemTexts(catalog))


def _lesson(order: Order, base: Base, report: Report) -> Lesson:
    """Read the requests, let the pipeline answer them for hard negatives, hold a part out."""
    pipeline = Pipeline(base.encoder, {base.catalog.name: base.catalog}, base.settings)
    cases = read_cases(order.requests)
    requests = asked(cases, pipeline, base.catalog)
    if len(requests) < LEAST_REQUESTS:
        raise ItemsInvalid(
            f"{order.requests}: of {len(cases)} requests the catalog answers {len(requests)}; "
            f"training needs {LEAST_REQUESTS}"
        )
    report(f"looking for hard negatives of {len(requests)} requests (of {len(cases)})")
    ranked = [
        base.catalog.known(ids)
        for ids in rankings(pipeline, [one.case.request for one in requests])
    ]
    learning, held = split(len(requests), order.choices.seed)
    examples = [
        example
        for n in learning
        for example in examples_of(n, requests[n].relevant, ranked[n], order.choices.seed)
    ]
    if not examples:
        raise ItemsInvalid(f"{order.requests}: every item answers every request")
    kept = [requests[n] for n in held]
    positions = pool([one.relevant for one in kept], [ranked[n] for n in held])
    weight = base.catalog.weights.vector
    held_out = HeldOut(kept, positions, base.catalog, base.items, weight, base.encoder)
    if order.validation is not None:
        judges, judged_on = read_cases(order.validation), "validation requests"
    else:
        judges, judged_on = [one.case for one in kept], "requests held out of training"
    return Lesson(requests, examples, held_out, judges, f"{len(judges)} {judged_on}")


def _trained(
    order: Order, base: Base, lesson: Lesson, work: Path, report: Report
) -> tuple[Path, float]:
    """The folder of the trained model, and the share of trained weights in it."""
    choices, encoder = order.choices, base.encoder
    batches = plan_batches(
        lesson.examples,
        _lengths(lesson, base, choices.max_tokens),
        epochs=choices.epochs,
        max_tokens=choices.batch_tokens,
        seed=choices.seed,
    )
    recipe = Recipe(
        choices.learning_rate, choices.max_tokens, order.minutes, choices.seed, encoder.prompts
    )
    texts = _texts(lesson, base)
    model = _load(base.folder, str(encoder.device))
    before = weights_of(model)
    known = lesson.held_out(model)[NAME]
    report(f"{len(batches)} batches; before training, held out {MEASURE} {known:.3f}")
    learn(model, batches, texts, lesson.held_out, recipe, work / CHECKPOINTS, report)
    share, figure = blend_best(model, before, lambda one: lesson.held_out(one)[NAME])
    report(f"held out {MEASURE} {figure:.3f} with {share:g} of the trained weights")
    folder = work / "model"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)
    return folder, share


def _lengths(lesson: Lesson, base: Base, most: int) -> Lengths:
    named = {p for one in lesson.examples for p in (one.item, *one.negatives)}
    positions = sorted(named)
    numbers = sorted({one.request for one in lesson.examples})
    queries = [lesson.requests[n].text for n in numbers]
    items = [base.items[p] for p in positions]
    return Lengths(
        dict(zip(numbers, count_tokens(base.encoder, queries, "query", most), strict=True)),
        dict(zip(positions, count_tokens(base.encoder, items, "document", most), strict=True)),
    )


def _texts(lesson: Lesson, base: Base) -> Callable[[Row], tuple[str, str, str]]:
    readable = base.encoder.readable

    def texts(row: Row) -> tuple[str, str, str]:
        item, negative = base.items[row.item], base.items[row.negative]
        return readable(lesson.requests[row.request].text), readable(item), readable(negative)

    return texts


def _load(folder: Path, device: str) -> Any:
    """The model's weights anew, float32: the encoder's own are frozen in a graph."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(
        str(folder),
        device=device,
        trust_remote_code=False,
        local_files_only=True,
        model_kwargs={"use_safetensors": True, "dtype": "float32"},
    )


def _judged(
    folder: Path,
    base: Base,
    lesson: Lesson,
    before: dict[str, list[float]],
    report: Report,
) -> tuple[judging.Verdict | None, str | None]:
    """Before and after on the same requests, and why the model must not be served, if so."""
    report(f"encoding the items with the trained model, to answer {lesson.judged_on}")
    settings = base.settings.model_copy(update={"model": str(folder), "model_revision": None})
    try:
        encoder = load_encoder(settings)
        catalog = judging.encoded_by(encoder, base.catalog, base.items)
        after = judging.answered(lesson.judges, encoder, catalog, settings)
    except CatalogError as error:
        return None, str(error)
    verdict = judging.compare(before, after)
    return verdict, judging.why_worse(verdict)
