"""Time of a training step in integers against one in float, on MiniLM's sizes: 32 sentences of 32 tokens.

Prints processor time, which other programs hardly disturb. Run: ``python -m benchmarks.quantize_step``.
"""

import argparse
import copy
import time

import torch
from transformers import BertConfig, BertForSequenceClassification

from compressor.encoder_quantization import calibrate_encoder
from compressor.quantized_model import train_in_integers

SENTENCES, TOKENS, VOCABULARY = 32, 32, 30522


def make_model():
    """A random BERT of MiniLM's sizes, without dropout."""
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(
        vocab_size=VOCABULARY, hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
        intermediate_size=1536, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))


def make_step(model, batch):
    """A function that runs one training step and returns its processor time in seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step():
        start = time.process_time()
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return time.process_time() - start

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    in_float = make_model()
    lengths = torch.randint(8, TOKENS + 1, (SENTENCES, 1))
    batch = {"input_ids": torch.randint(1000, VOCABULARY, (SENTENCES, TOKENS)),
             "attention_mask": (torch.arange(TOKENS) < lengths).long(),
             "labels": torch.randint(0, 2, (SENTENCES,))}
    in_integers = copy.deepcopy(in_float)
    train_in_integers(in_integers, calibrate_encoder(in_integers, [batch]))
    steps = make_step(in_float, batch), make_step(in_integers, batch)
    times = [[step() for step in steps] for _ in range(options.repeats)]  # in turn: both see the same load
    float_time, integer_time = map(min, zip(*times, strict=True))
    print(f"processor time of a step, {options.threads} threads: {float_time:.2f} s in float, "
          f"{integer_time:.2f} s in integers, ratio {integer_time / float_time:.2f}")


if __name__ == "__main__":
    main()
