"""Tables that the report reads: published figures and training curves."""

from pathlib import Path

import pandas as pd

from metalib.storage import StorageError


def read_table(path: Path, columns: set[str]) -> pd.DataFrame:
    """Return a table, comma-separated or (``.tsv``) tab-separated.

    Raises:
        StorageError: the file is missing, is no table, or lacks one of ``columns``.
    """
    try:
        table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}); check the path, or run `dvc repro`") from error
    except (ValueError, pd.errors.ParserError) as error:
        raise StorageError(f"{path} is no table ({str(error).splitlines()[0]})") from error
    missing = columns - set(table.columns)
    if missing:
        raise StorageError(f"{path} lacks the column {', '.join(sorted(missing))}; it has: {', '.join(table.columns)}")
    return table
