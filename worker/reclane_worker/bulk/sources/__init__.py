"""Sources of a bulk run: files and databases, read in slices from a cursor.

source = open_source(SOURCE_SPEC.validate_python({"kind": "files", "paths": ["users.csv"]}))
source.check()
slice = source.read(None, 1_000)  # then source.read(slice.cursor, 1_000), until it is None
"""

from reclane.bulk.spec import FilesSource, SourceSpec
from reclane_worker.bulk.sources.files import Files
from reclane_worker.bulk.sources.rows import BadRow, Cursor, Row, Slice, Source

__all__ = ["BadRow", "Cursor", "Row", "Slice", "Source", "open_source"]


def open_source(spec: SourceSpec) -> Source:
    """The source that the spec names; cheap, opens no file and connects nowhere.

    Raises:
        SourceUnusable: a path finds no file, or one of an unknown kind.
        MissingExtra: a database needs a package that is not installed.
    """
    if isinstance(spec, FilesSource):
        return Files(spec)
    from reclane_worker.bulk.sources.sql import Database

    return Database(spec)
