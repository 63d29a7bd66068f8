"""Train a small real model in Phi-3 layout: `python -m benchmarks.train_small DIR --text FILE`.

The quality table needs a model whose weights come from training in full precision, without any 4-bit past, and
whose rows hold llama.cpp's superblocks of 256. It is small enough for one processor core: a byte-level BPE of
its own, four layers of width 256, AdamW with weight decay, warm-up and cosine decay. The text is the one
that benchmarks/texts.py sets aside for it; its last HELD_OUT bytes are kept for the perplexity that is stated.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Phi3Config, Phi3ForCausalLM

VOCABULARY = 4096
CONTEXT = 512
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
HELD_OUT = 400_000
LENGTH, BATCH, STEPS = 256, 8, 1500
PEAK_RATE, WEIGHT_DECAY, WARM_UP = 2e-3, 0.1, 100
SEED = 20261123
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def train_tokenizer(text: str) -> Tokenizer:
    """Byte-level BPE with single digits, the pre-tokenizer that llama.cpp calls `smollm`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(text.split("\n\n"), trainer)
    return tokenizer


def new_model() -> Phi3ForCausalLM:
    torch.manual_seed(SEED)
    return Phi3ForCausalLM(
        Phi3Config(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            original_max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=2,
            pad_token_id=0,
            sliding_window=None,
        )
    )


def train(model: Phi3ForCausalLM, ids: NDArray[np.int64], steps: int) -> None:
    """Random windows of the text; the learning rate falls to a tenth along a cosine."""
    decayed = [p for p in model.parameters() if p.ndim == 2]
    plain = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    rng = np.random.default_rng(SEED)
    began, average = time.monotonic(), math.log(VOCABULARY)
    model.train()
    for step in range(steps):
        done = step / steps
        rate = PEAK_RATE * min((step + 1) / WARM_UP, 0.55 + 0.45 * math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = rng.integers(len(ids) - LENGTH, size=BATCH)
        batch = torch.from_numpy(np.stack([ids[s : s + LENGTH] for s in starts]))
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average += 0.02 * (loss.item() - average)
        if step % 50 == 0:
            print(
                f"step {step} loss {average:.3f} rate {rate:.1e} {time.monotonic() - began:.0f} s", flush=True
            )


@torch.no_grad()
def perplexity(model: Phi3ForCausalLM, ids: NDArray[np.int64], windows: int = 64) -> float:
    """Over evenly spaced windows of LENGTH tokens, all predictions."""
    model.eval()
    starts = np.linspace(0, len(ids) - LENGTH, windows).astype(int)
    losses = [
        model(input_ids=(batch := torch.from_numpy(ids[s : s + LENGTH])[None]), labels=batch).loss.item()
        for s in starts
    ]
    return math.exp(float(np.mean(losses)))


def save(model: Phi3ForCausalLM, tokenizer: Tokenizer, directory: Path) -> None:
    """A checkpoint in Hugging Face layout, float32."""
    model.save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "add_bos_token": False,
        "bos_token": SPECIAL[0],
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": SPECIAL[2],
        "pad_token": SPECIAL[0],
        "tokenizer_class": "GPT2Tokenizer",
        "unk_token": SPECIAL[0],
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def train_small(text_file: Path, directory: Path, steps: int = STEPS) -> None:
    """Train on `text_file` and write the checkpoint into `directory`."""
    torch.set_num_threads(1)
    text = text_file.read_text()
    tokenizer = train_tokenizer(text[:-HELD_OUT])
    ids, held_out = (
        np.concatenate([np.asarray(e.ids, np.int64) for e in tokenizer.encode_batch(part.split("\n\n"))])
        for part in (text[:-HELD_OUT], text[-HELD_OUT:])
    )
    model = new_model()
    size = sum(p.numel() for p in model.parameters())
    print(f"{size} parameters, {len(ids)} tokens of text, {len(held_out)} held out", flush=True)
    train(model, ids, steps)
    save(model, tokenizer, directory)
    seen = steps * BATCH * LENGTH
    print(f"trained on {seen} tokens; held-out perplexity {perplexity(model, held_out):.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--text", type=Path, required=True, help="training.txt of benchmarks/texts.py")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    train_small(options.text, options.directory, options.steps)


if __name__ == "__main__":
    main()
