"""From rows of text to what a model reads: token ids with labels, padded batch by batch."""

from torch.utils.data import Dataset


class EncodedRows(Dataset):
    """Tokenized rows: dicts with ``input_ids``, ``attention_mask`` and, where rows have one, ``labels``.

    Parameters
    ----------
    task : Task
    rows : list of dict
        As :func:`compressor.tasks.load_task` gives them.
    tokenizer : PreTrainedTokenizer
    max_tokens : int
        Longer inputs are cut, special tokens included.

    Attributes
    ----------
    lengths : list of int
        Tokens of every row.
    """

    def __init__(self, task, rows, tokenizer, max_tokens):
        texts = [[row[field] for row in rows] for field in task.fields]
        self._columns = tokenizer(*texts, truncation=True, max_length=max_tokens)
        if "label" in rows[0]:
            self._columns["labels"] = [row["label"] for row in rows]
        self.lengths = [len(ids) for ids in self._columns["input_ids"]]

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        return {name: values[index] for name, values in self._columns.items()}
