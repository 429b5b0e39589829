"""A small BERT with a word tokenizer, built on the spot: for the demo and for tests, no downloads.

2 layers, H = 64, A = 4 heads, F = 256.
"""

from collections import Counter

HIDDEN = 64
LAYERS = 2
HEADS = 4
FEED_FORWARD = 256
VOCABULARY_MAX = 4000

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def build_tiny_model(task, rows, *, max_tokens, seed=0):
    """A fresh model for a task, and its tokenizer.

    Parameters
    ----------
    task : Task
    rows : list of dict
        Training rows; the vocabulary is their 4000 most frequent words.
    max_tokens : int
        Longest input, special tokens included.

    Returns
    -------
    model : BertForSequenceClassification or BertForQuestionAnswering
    tokenizer : BertTokenizer
        Every word is one token; unknown words become [UNK].
    """
    import torch
    from transformers import BertConfig, BertForQuestionAnswering, BertForSequenceClassification

    tokenizer = build_word_tokenizer(task, rows, max_tokens=max_tokens)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, intermediate_size=FEED_FORWARD, max_position_embeddings=max_tokens,
        pad_token_id=0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        # About 1 / sqrt(H). BERT's 0.02, made for H = 768, leaves a model this narrow without signal.
        initializer_range=0.15,
        **label_config(task))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = BertForQuestionAnswering if task.spans else BertForSequenceClassification
        return kind(config), tokenizer


def build_word_tokenizer(task, rows, *, max_tokens):
    """A BertTokenizer whose pieces are the most frequent words of ``rows``, ties in word order."""
    from transformers import BertTokenizer

    plain = BertTokenizer(vocab={word: i for i, word in enumerate(_SPECIAL)})
    split = plain.backend_tokenizer
    counts = Counter()
    for row in rows:
        for field in task.fields:
            text = split.normalizer.normalize_str(row[field])
            counts.update(word for word, _ in split.pre_tokenizer.pre_tokenize_str(text))
    words = sorted(counts, key=lambda word: (-counts[word], word))[:VOCABULARY_MAX]
    vocab = {word: i for i, word in enumerate((*_SPECIAL, *sorted(words)))}
    return BertTokenizer(vocab=vocab, model_max_length=max_tokens)


def label_config(task):
    """Settings of a model config that name the task's labels; a model for spans has none."""
    if task.spans:
        return {}
    if not task.labels:
        return {"num_labels": 1, "problem_type": "regression"}
    # The type is named because a model that was trained on a regression before says "regression".
    return {"num_labels": len(task.labels), "problem_type": "single_label_classification",
            "id2label": dict(enumerate(task.labels)),
            "label2id": {name: i for i, name in enumerate(task.labels)}}
