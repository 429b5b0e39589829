"""Rows from local files: JSON lines (also gzipped), CSV and TSV."""

import csv
import gzip
import json
from pathlib import Path

ENDINGS = (".jsonl", ".jsonl.gz", ".csv", ".tsv")

ENCODING = "utf-8-sig"
"""UTF-8, with or without the mark that spreadsheets write in front."""


class TaskError(ValueError):
    """A task, or its data, that cannot be used; the message is one line."""


def read_split(folder, split):
    """Rows of one split: a list of dicts, or None if a validation split has no file.

    The split's file is the one whose name starts with the split's name and ends in one of
    :data:`ENDINGS`: ``train.jsonl.gz``, ``train_subset9k.csv``. A validation file may also start with
    ``dev`` or ``heldout``.

    Raises
    ------
    TaskError
        If the folder is missing, several files fit, there is no training file, or a file is unreadable.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TaskError(f"{folder}: no such folder; --data names a folder with train and validation "
                        "files")
    starts = [split] + (["dev", "heldout"] if split == "validation" else [])
    found = sorted(path for path in folder.iterdir()
                   if path.name.endswith(ENDINGS) and path.name.startswith(tuple(starts)))
    exact = [path for path in found if path.name.split(".")[0] == split]
    if exact:
        found = exact
    if len(found) > 1:
        raise TaskError(f"{folder}: several files for split {split}: "
                        f"{', '.join(path.name for path in found)}; keep one")
    if not found and split == "train":
        raise TaskError(f"{folder}: no file train*{{{','.join(ENDINGS)}}}")
    return read_rows(found[0]) if found else None


def read_rows(path):
    """Rows of one file, by its ending: a list of dicts; TaskError says which line is bad."""
    path = Path(path)
    if not path.name.endswith(ENDINGS):
        raise TaskError(f"{path}: unknown kind of file; use {', '.join(ENDINGS)}")
    open_file = gzip.open if path.name.endswith(".gz") else open
    try:
        with open_file(path, "rt", encoding=ENCODING, newline="") as lines:
            if ".jsonl" in path.name:
                return [_json_row(path, number, line) for number, line in enumerate(lines, start=1)
                        if line.strip()]
            if path.name.endswith(".tsv"):
                # GLUE's own TSV files quote nothing; a quotation mark is text.
                return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
            return list(csv.DictReader(lines))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise TaskError(f"{path}: cannot read: {error}") from error


def _json_row(path, number, line):
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise TaskError(f"{path}, line {number}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise TaskError(f"{path}, line {number}: a row is an object, not {type(row).__name__}")
    return row
