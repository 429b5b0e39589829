"""Real sentences as inputs: from a task file, or generated, through the bundle's own model."""

from compressor.task_files import read_rows
from compressor.tasks import TaskError, load_task, stored_task
from sim.vectors import LayerVectors

TEXT_FIELDS = ("sentence", "text")
"""Fields of a row tried if those of the bundle's task are not there."""


def task_of(bundle):
    """The Task of a bundle: its text fields, labels and metrics."""
    return stored_task(bundle.model["task"], bundle.model["fields"], bundle.model["labels"],
                       bundle.model["metrics"])


def read_sentences(bundle, data, limit):
    """Sentences of a file, or generated ones.

    Parameters
    ----------
    bundle : compressor.bundle.Bundle
        Its task says which fields of a row hold text.
    data : str or Path
        A .jsonl, .jsonl.gz, .tsv or .csv file, or ``synthetic`` for the generated task.
    limit : int
        At most this many.

    Returns
    -------
    list of str or (str, str)

    Raises
    ------
    TaskError
        If the file cannot be read, or a row has no text.
    """
    if str(data) == "synthetic":
        rows = load_task("synthetic", train_rows=1, validation_rows=limit).validation["validation"]
    else:
        rows = read_rows(data)
    fields = _text_fields(bundle, rows, data)
    sentences = []
    for number, row in enumerate(rows[:limit], start=1):
        texts = [row.get(field) for field in fields]
        if not all(texts):
            raise TaskError(f"{data}, row {number}: no text in {' or '.join(fields)}")
        sentences.append(texts[0] if len(texts) == 1 else tuple(texts))
    return sentences


def sentence_vectors(bundle, sentences, tokens, names):
    """Inputs and golden outputs of layers, one sentence at a time.

    Each sentence is padded or cut to ``tokens`` tokens; padding is computed and compared as well.

    Parameters
    ----------
    bundle : compressor.bundle.Bundle
    sentences : list of str or (str, str)
    tokens : int
    names : sequence of str
        Layers to keep.

    Yields
    ------
    dict of str to LayerVectors
    """
    from compressor.golden_vectors import linear_vectors
    from compressor.reload import encode, to_model, to_tokenizer

    model, tokenizer = to_model(bundle), to_tokenizer(bundle)
    for batch in encode(tokenizer, sentences, tokens, batch_size=1):
        yield {name: LayerVectors(x, y) for name, x, y in linear_vectors(bundle, [batch], model=model)
               if name in names}


def _text_fields(bundle, rows, name):
    fields = task_of(bundle).fields
    candidates = [fields] if fields else []
    candidates += [(field,) for field in TEXT_FIELDS]
    for fields in candidates:
        if rows and all(field in rows[0] for field in fields):
            return fields
    found = ", ".join(map(str, rows[0])) if rows else "no rows"
    raise TaskError(f"{name}: rows need the text fields {' or '.join('+'.join(f) for f in candidates)}; "
                    f"found {found}")
