"""The host's part of a bundle: sentences to words, hidden states to logits. Loads torch and transformers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from compressor.bundle import load_bundle
from compressor.golden_model import host_of
from compressor.host import BertHost
from compressor.reload import encode, to_tokenizer
from compressor.text_file import StrPath
from hwgen.driver.errors import InputTooLongError


@dataclass(frozen=True, kw_only=True, eq=False)
class SentenceHost:
    """Tokenizer, embeddings, pooler and classifier of a bundle, and the names of its labels."""

    tokenizer: Any
    host: BertHost
    labels: tuple[str, ...]

    @classmethod
    def of_file(cls, path: StrPath) -> Self:
        """The host part of a bundle file; BundleError or ValueError if it has none."""
        bundle = load_bundle(path)
        return cls(tokenizer=to_tokenizer(bundle), host=host_of(bundle),
                   labels=tuple(str(one) for one in bundle.model["labels"] or ()))

    def inputs(self, sentences: Sequence[str] | Sequence[tuple[str, str]], tokens: int, *,
               truncate: bool) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]]:
        """What the encoder gets: int8 (sentences, tokens, hidden), and valid lengths int64 (sentences,).

        Raises
        ------
        InputTooLongError
            If a sentence has more than ``tokens`` tokens, unless ``truncate``.
        """
        if not truncate:
            self._check_lengths(sentences, tokens)
        parts = [self.host.inputs(batch) for batch in encode(self.tokenizer, sentences, tokens)]
        x, lengths = zip(*parts, strict=True)
        return np.concatenate(x), np.concatenate(lengths)

    def _check_lengths(self, sentences: Sequence[str] | Sequence[tuple[str, str]], tokens: int) -> None:
        for index, sentence in enumerate(sentences):
            texts = (sentence,) if isinstance(sentence, str) else tuple(sentence)
            found = len(self.tokenizer(*texts, verbose=False)["input_ids"])
            if found > tokens:
                raise InputTooLongError(
                    f"sentence {index} has {found} tokens; the program on this accelerator takes {tokens}: "
                    "shorten it, or pass truncate=True to cut it there")
