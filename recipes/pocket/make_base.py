"""Make pocket's base model, the small causal LM that ships with the project, from nothing but a seed.

    python recipes/pocket/make_base.py [--out recipes/pocket/base] [--steps 1500] [--seed 0]

A Llama of 0.8 M parameters with characters as tokens, trained on responses drawn with the base's habits to problems of
the training split alone. Takes about 15 minutes on 2 cores.
"""

import argparse
import math
import random
from pathlib import Path

import torch
from rich.progress import track
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tokenshift.recipes.pocket.problems import KINDS, pool, prompt, question
from tokenshift.recipes.pocket.solutions import write_solution

CHARACTERS = "0123456789+-*=?:;,. \n\\{}abcdefghijklmnopqrstuvwxyzAEILQST"
PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character. Padding on the left, as generation needs it."""
    vocabulary = {token: index for index, token in enumerate((PAD, BOS, EOS, UNK, *CHARACTERS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


def make_model(vocab_size: int) -> LlamaForCausalLM:
    """The untrained model; head_dim 32 is the smallest that vLLM's attention takes."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def draw_batch(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`input_ids`, `attention_mask`, `labels`, each `(size, T)` int64; padded on the right, prompts not learnt."""
    rows, prompt_lengths = [], []
    for _ in range(size):
        kind = rng.choice(KINDS)
        numbers = rng.choice(pool(kind, "train"))
        ids = tokenizer(prompt(question(kind, numbers))).input_ids
        prompt_lengths.append(len(ids))
        rows.append(ids + tokenizer(write_solution(kind, numbers, rng)).input_ids + [tokenizer.eos_token_id])
    length = max(map(len, rows))
    input_ids = torch.zeros(size, length, dtype=torch.long)
    labels = torch.full((size, length), -100)
    for index, (row, start) in enumerate(zip(rows, prompt_lengths, strict=True)):
        input_ids[index, : len(row)] = torch.tensor(row)
        labels[index, start : len(row)] = torch.tensor(row[start:])
    return input_ids, (input_ids != 0).long(), labels


def train_base(steps: int, seed: int, batch_size: int = 96, peak_lr: float = 2e-3) -> tuple[LlamaForCausalLM, float]:
    """Train with warm-up and cosine decay; the model, and the mean loss of the last 50 batches (nats/token)."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_lr, weight_decay=0.01, betas=(0.9, 0.98))
    losses: list[float] = []
    for step in track(range(steps), description="training pocket's base"):
        decay = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = peak_lr * min(1.0, (step + 1) / 100) * (0.98 * decay + 0.02)
        input_ids, attention_mask, labels = draw_batch(tokenizer, rng, batch_size)
        loss = model(input_ids=input_ids, attention_mask=attention_mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return model, sum(losses[-50:]) / len(losses[-50:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "base")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model, loss = train_base(args.steps, args.seed)
    model.generation_config.update(pad_token_id=0, bos_token_id=1, eos_token_id=2)
    model.save_pretrained(args.out)
    make_tokenizer().save_pretrained(args.out)
    print(f"Wrote {args.out}, last loss {loss:.4f} nats/token.")


if __name__ == "__main__":
    main()
