"""Question answering by spans of a text, as in SQuAD 1.1: windows of long texts, answers, their metrics.

A text that is too long becomes several windows, which overlap by a third of the longest input (128 of 384
tokens, SQuAD's usual setting). Answers are compared as SQuAD's evaluation does (Rajpurkar et al., arXiv
1606.05250, section 6.1): without case, punctuation, articles and extra spaces, against every answer given.
"""

import re
import string
from collections import Counter

import numpy as np

from compressor.task_files import TaskError

QUESTION_SHARE, OVERLAP_SHARE = 6, 3
"""A question may take this part of the longest input, windows overlap by that part."""

MAX_TOKENS_MIN = 24
"""Shortest input that holds a question, an overlap and something new."""

BEST, ANSWER_TOKENS = 20, 30
"""Starts and ends that are combined in each window, and the longest answer in tokens."""

_ROWS_AT_ONCE = 1000
_ELSEWHERE = (-1, -1)


class EncodedSpans:
    """Data set of windows of questions and texts.

    Its items are dicts with ``input_ids``, ``attention_mask``, ``start_positions`` and ``end_positions``: the
    tokens of the first answer, both 0 where a window does not have it.

    Parameters
    ----------
    task : Task
    rows : list of dict
        As :func:`compressor.tasks.load_task` gives them.
    tokenizer : PreTrainedTokenizerFast
        It must know where its tokens lie in a text.
    max_tokens : int
        Length of a window, question and special tokens included.

    Attributes
    ----------
    lengths : list of int
        Tokens of every window.
    owners : list of int
        The row of every window.
    places : list of int32 array, shape (tokens, 2)
        For every window and token, where it lies in the row's text, start and end in characters; -1 for
        tokens of the question and special tokens.

    Raises
    ------
    TaskError
        If ``max_tokens`` is too small, or the tokenizer gives no places.
    """

    def __init__(self, task, rows, tokenizer, max_tokens):
        if max_tokens < MAX_TOKENS_MIN:
            raise TaskError(f"task {task.name}: training.max_tokens is {max_tokens}; questions and texts "
                            f"need {MAX_TOKENS_MIN} or more, 384 is usual")
        if not tokenizer.is_fast:
            raise TaskError(f"task {task.name}: a {type(tokenizer).__name__} does not say where its tokens "
                            "lie in the text; use a model with tokenizer.json")
        self.rows, self.owners, self.places, self._columns = rows, [], [], {}
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            self._add(tokenizer, first, rows[first:first + _ROWS_AT_ONCE], max_tokens)
        spans = [_tokens_of(places, rows[owner]["answers"])
                 for places, owner in zip(self.places, self.owners, strict=True)]
        self._columns["start_positions"], self._columns["end_positions"] = map(list, zip(*spans, strict=True))
        self.lengths = [len(ids) for ids in self._columns["input_ids"]]

    def _add(self, tokenizer, first, rows, max_tokens):
        """Append the windows of rows that begin with the row ``first``."""
        questions = _shortened(tokenizer, [row["question"] for row in rows], max_tokens // QUESTION_SHARE)
        found = tokenizer(questions, [row["context"] for row in rows], truncation="only_second",
                          max_length=max_tokens, stride=max_tokens // OVERLAP_SHARE,
                          return_overflowing_tokens=True, return_offsets_mapping=True)
        self.owners += [first + row for row in found.pop("overflow_to_sample_mapping")]
        for window, offsets in enumerate(found.pop("offset_mapping")):
            parts = found.sequence_ids(window)
            self.places.append(np.array([place if part == 1 else _ELSEWHERE
                                         for place, part in zip(offsets, parts, strict=True)], np.int32))
        for name, values in found.items():
            self._columns.setdefault(name, []).extend(values)

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        return {name: values[index] for name, values in self._columns.items()}

    def answers(self, start_logits, end_logits):
        """The model's answer to every row, a list of str; arguments of shape (windows, tokens or more).

        Of all windows of a row, the span with the largest sum of logits that lies in the text, is not longer
        than 30 tokens and ends where it starts or later.
        """
        best = [(-np.inf, "")] * len(self.rows)
        for window, (owner, places) in enumerate(zip(self.owners, self.places, strict=True)):
            score, span = _best_span(start_logits[window], end_logits[window], places)
            if score > best[owner][0]:
                best[owner] = score, self.rows[owner]["context"][slice(*span)]
        return [text for _, text in best]

    def metrics(self, predictions, _labels=None):
        """``f1`` and ``exact_match``, 0 to 1, means over rows; ``predictions``: start and end logits."""
        found = self.answers(*predictions)
        pairs = list(zip(found, (row["answers"]["text"] for row in self.rows), strict=True))
        return {"f1": float(np.mean([max(answer_f1(text, one) for one in given) for text, given in pairs])),
                "exact_match": float(np.mean([any(normalized(text) == normalized(one) for one in given)
                                              for text, given in pairs]))}


def _shortened(tokenizer, questions, tokens):
    """Questions without what is beyond so many tokens, and without spaces in front."""
    questions = [question.lstrip() for question in questions]
    found = tokenizer(questions, add_special_tokens=False, truncation=True, max_length=tokens,
                      return_offsets_mapping=True)
    return [question[:places[-1][1]] if places else question
            for question, places in zip(questions, found["offset_mapping"], strict=True)]


def _tokens_of(places, answers):
    """First and last token of the first answer in a window; (0, 0) if it is not all there."""
    start = answers["answer_start"][0]
    end = start + len(answers["text"][0])
    inside = np.flatnonzero((places[:, 0] < end) & (places[:, 1] > start))
    if not len(inside) or places[inside[0], 0] > start or places[inside[-1], 1] < end:
        return 0, 0
    return int(inside[0]), int(inside[-1])


def _best_span(start_logits, end_logits, places):
    """Score of the best span of a window, and its (start, end) in characters."""
    real = np.flatnonzero(places[:, 1] >= 0)
    if not len(real):
        return -np.inf, (0, 0)
    starts, ends = (real[np.argsort(-logits[real], kind="stable")[:BEST]]
                    for logits in (start_logits, end_logits))
    scores = start_logits[starts][:, None] + end_logits[ends]
    length = ends - starts[:, None] + 1
    scores = np.where((length >= 1) & (length <= ANSWER_TOKENS), scores, -np.inf)
    first, last = np.unravel_index(scores.argmax(), scores.shape)
    return scores[first, last], (places[starts[first], 0], places[ends[last], 1])


def normalized(answer):
    """An answer without case, punctuation, articles and extra spaces.

    >>> normalized("The  Denver Broncos!")
    'denver broncos'
    """
    kept = "".join(letter for letter in answer.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def answer_f1(found, given):
    """F1 of the words of two answers, 0 to 1.

    >>> round(answer_f1("the Broncos of Denver", "Denver Broncos"), 2)
    0.8
    """
    found, given = normalized(found).split(), normalized(given).split()
    shared = (Counter(found) & Counter(given)).total()
    return 2 * shared / (len(found) + len(given)) if shared else 0.0


def checked_answers(row, where):
    """A row's answers as {"text": list of str, "answer_start": list of int}.

    Raises
    ------
    TaskError
        If there is none, or the first is not where it is said to be.
    """
    answers = row.get("answers")
    try:
        texts, starts = [str(text) for text in answers["text"]], [int(at) for at in answers["answer_start"]]
    except (TypeError, KeyError, ValueError):
        raise TaskError(f"{where}: answers must be {{text: [...], answer_start: [...]}}") from None
    if not texts or len(texts) != len(starts):
        raise TaskError(f"{where}: {len(texts)} answers with {len(starts)} starts; questions without an "
                        "answer (SQuAD 2.0) are not supported")
    if starts[0] < 0 or row["context"][starts[0]:starts[0] + len(texts[0])] != texts[0]:
        raise TaskError(f"{where}: the answer {texts[0][:40]!r} is not at character {starts[0]} of the "
                        "context")
    return {"text": texts, "answer_start": starts}
