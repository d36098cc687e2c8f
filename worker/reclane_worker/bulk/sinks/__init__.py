"""Sinks of a bulk run: files, Redis and databases, written in parts that may be repeated.

sink = open_sink(SINK_SPEC.validate_python({"kind": "parquet", "path": "recs"}), "run-1")
sink.check()
parts = [sink.write(0, results), sink.write(1, more_results)]
sink.complete(Manifest(run="run-1", parts=parts, ...))
"""

from reclane.bulk.spec import JsonlSink, ParquetSink, RedisSink, SinkSpec
from reclane_worker.bulk.sinks.results import Carried, Manifest, Part, Result, Sink

__all__ = ["Carried", "Manifest", "Part", "Result", "Sink", "open_sink"]


def open_sink(spec: SinkSpec, run: str) -> Sink:
    """The sink that the spec names, for the run of this id; touches nothing.

    Raises:
        SinkUnusable: a URL cannot be read, or the run's id cannot be in a file name.
        MissingExtra: the sink needs a package that is not installed.
    """
    if isinstance(spec, ParquetSink | JsonlSink):
        from reclane_worker.bulk.sinks.folder import Folder

        return Folder(spec, run)
    if isinstance(spec, RedisSink):
        from reclane_worker.bulk.sinks.keys import Keys

        return Keys(spec)
    from reclane_worker.bulk.sinks.table import Table

    return Table(spec, run)
