"""Time of a step of ADMM pattern training against one of plain fine-tuning, on BERT-base's shapes.

One encoder layer stands for all: both costs are linear in the number of layers. The projection of every 80th
step is spread over its interval. Prints processor time, which other programs hardly disturb.
Run: ``python -m benchmarks.admm_step``.
"""

import argparse
import time

import torch
from transformers import BertConfig, BertForSequenceClassification

from compressor.recipes import Recipe
from compressor.stages import StageState

INTERVAL = 80


def make_model(layers):
    """A random BERT of BERT-base's sizes with fewer layers and words."""
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(
        vocab_size=1000, num_hidden_layers=layers, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))


def least(function, repeats):
    """Least processor time of a call, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = make_model(options.layers)
    batch = {"input_ids": torch.randint(5, 1000, (options.sentences, options.tokens)),
             "labels": torch.randint(0, 2, (options.sentences,))}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def plain():
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()

    step = least(plain, options.repeats)
    print(f"plain step, {options.layers} layer, {options.sentences} sentences of {options.tokens} tokens: "
          f"{step:.3f} s of processor time")
    for coupling in ("loss", "decoupled"):
        recipe = Recipe.from_dict({"schema_version": 1, "stages": [
            {"method": "admm", "epochs": 1, "coupling": coupling}]})
        state, stage = StageState(model, recipe), recipe.stages[0]
        state.enter(stage)

        def adjust(state=state, stage=stage):
            state.before_clipping(stage)
            state.after_optimizer_step(stage, 1.0)

        every, update = least(adjust, options.repeats), least(state.method.update, options.repeats)
        ratio = (step + every + update / INTERVAL) / step
        print(f"ADMM, coupling {coupling}: {1000 * every:.1f} ms a step, {1000 * update:.0f} ms a projection "
              f"every {INTERVAL} steps: {ratio:.3f} of the plain step")


if __name__ == "__main__":
    main()
