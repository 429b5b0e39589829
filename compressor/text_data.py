"""Unlabelled sentences for recovery: read from text and row files, without repetitions."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compressor.task_definition import Task
from compressor.task_files import ENCODING, ENDINGS, TaskError, read_rows
from compressor.tasks import TaskData
from compressor.text_file import StrPath

TEXT = Task(name="text", fields=("sentence",), labels=(), metrics=())
"""What an encoder is called to have been trained on, when it was plain text."""

TEXT_FIELDS = ("text", "sentence", "sentence1", "sentence2", "premise", "hypothesis", "question", "question1",
               "question2", "context")
"""Fields of a row that hold sentences; each counts as one."""

PLAIN_ENDINGS = (".txt", ".txt.gz")

HELD_OUT_MAX = 512
"""Sentences held out for evaluation; a tenth of the sentences, if that is less."""


def load_text(files: Sequence[StrPath], *, rows: int | None = None, seed: int = 0) -> TaskData:
    """Sentences of some files, as task data without labels.

    Parameters
    ----------
    files : sequence of path
        ``.txt`` or ``.txt.gz`` with one sentence a line, or files of rows (``.jsonl``, ``.csv``, ...)
        with at least one of :data:`TEXT_FIELDS`.
    rows : int, optional
        Use this many sentences: a seeded sample.

    Returns
    -------
    compressor.tasks.TaskData
        Of task :data:`TEXT`; every sentence once; a seeded part held out as ``validation``.

    Raises
    ------
    TaskError
        If a file cannot be read or has no sentences, or fewer than two are left.
    """
    sentences = list(dict.fromkeys(sentence for file in files for sentence in read_sentences(file)))
    if len(sentences) < 2:
        raise TaskError(f"{', '.join(map(str, files))}: {len(sentences)} different sentences; at least 2 are "
                        "needed, thousands are useful")
    order = np.random.default_rng(seed).permutation(len(sentences))[:rows].tolist()
    held_out = min(HELD_OUT_MAX, max(1, len(order) // 10))
    picked = [{"sentence": sentences[i]} for i in order]
    return TaskData(task=TEXT, train=picked[held_out:], validation={"validation": picked[:held_out]})


def read_sentences(path):
    """The sentences of one file, empty lines left out; TaskError says what is wrong with it."""
    path = Path(path)
    if path.name.endswith(ENDINGS):
        rows = read_rows(path)
        found = [str(row[field]).strip() for row in rows for field in TEXT_FIELDS if row.get(field)]
    elif path.name.endswith(PLAIN_ENDINGS):
        open_file = gzip.open if path.name.endswith(".gz") else open
        try:
            with open_file(path, "rt", encoding=ENCODING) as lines:
                found = [line.strip() for line in lines]
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise TaskError(f"{path}: cannot read: {error}") from error
    else:
        raise TaskError(f"{path}: unknown kind of file; use {', '.join((*PLAIN_ENDINGS, *ENDINGS))}")
    found = [sentence for sentence in found if sentence]
    if not found:
        raise TaskError(f"{path}: no sentences; a row needs one of the fields {', '.join(TEXT_FIELDS)}"
                        if path.name.endswith(ENDINGS) else f"{path}: no sentences")
    return found
