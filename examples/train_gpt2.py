"""Train a small GPT-2 of your own from scratch: tokenizer, model, perplexity, a folder that writes.

    python examples/train_gpt2.py tinyshakespeare/input.txt wikitext-2/valid.txt --valid wikitext-2/test.txt -o out/gpt2
    polyformer generate "ROMEO:" --model out/gpt2 --strategy sample --seed 1 --stream

So trained, on tinyshakespeare and the validation text of wikitext-2 (2.6 million parameters, 800 steps), it has a
perplexity of 106.60 a token on wikitext-2's test text, the same model trained by Hugging Face's library one of 106.65.
Some minutes on a CPU core with the settings below, seconds on a GPU. --peer trains the same model once more with
Hugging Face's library, from the same first weights on the same batches, and prints both perplexities side by side.
Equal seeds give equal runs.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from polyformer import GenerationConfig, GPT2Config, GPT2LMHeadModel, GPT2Tokenizer
from polyformer.metrics.perplexity import perplexity
from polyformer.tokenizers.byte_level import BYTE_OF

EOS = "<|endoftext|>"


def tokenizer_of(texts: list[str], words: int, folder: Path) -> GPT2Tokenizer:
    """A byte-level BPE of so many tokens, learnt from the texts."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(BYTE_OF | {EOS: 256}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    plain = GPT2Tokenizer(folder / "vocab.json", folder / "merges.txt")
    learnt = plain.train_new_from_iterator([line for text in texts for line in text.splitlines(True)], words)
    learnt.save_pretrained(folder)
    return learnt


def batches(ids: Tensor, length: int, rows: int, seed: int) -> Any:
    """(rows, length) windows of the text, at places drawn anew for ever."""
    draw = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(ids) - length, (rows,), generator=draw)
        yield torch.stack([ids[start : start + length] for start in starts])


def rate(step: int, steps: int, top: float) -> float:
    """Of learning: up in the first twentieth, then down along a cosine to a tenth."""
    warm = max(1, steps // 20)
    if step < warm:
        return top * (step + 1) / warm
    return top * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


def train(model: Any, ids: Tensor, args: argparse.Namespace, name: str) -> list[float]:
    """Train a model of either library; the loss of every step."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.9, 0.95), weight_decay=0.1)
    model.train()
    losses = []
    device = next(model.parameters()).device
    draws = batches(ids, args.length, args.rows, args.seed)
    progress = tqdm(range(args.steps), desc=name, unit="step", disable=None)
    for step in progress:
        for group in optimiser.param_groups:
            group["lr"] = rate(step, args.steps, args.rate)
        batch = next(draws).to(device)
        loss = model(input_ids=batch, labels=batch).loss
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        progress.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    return losses


@torch.no_grad()
def held_out(model: Any, ids: Tensor, length: int) -> float:
    """Perplexity over windows side by side, which both libraries can be asked for alike."""
    model.eval()
    windows = ids[: len(ids) // length * length].view(-1, length).to(next(model.parameters()).device)
    losses = [float(model(input_ids=rows, labels=rows).loss) * len(rows) for rows in windows.split(8)]
    return math.exp(sum(losses) / len(windows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", nargs="+", type=Path, metavar="FILE", help="texts to learn from")
    parser.add_argument("--valid", type=Path, metavar="FILE", help="a text to be tested with; else their last tenth")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/gpt2"), metavar="DIR")
    parser.add_argument("--words", type=int, default=4096, help="tokens of the vocabulary; 4096 by default")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--length", type=int, default=128, help="tokens of a window")
    parser.add_argument("--rows", type=int, default=16, help="windows of a step")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--rate", type=float, default=2e-3, help="of learning, at its highest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", action="store_true", help="train the same with transformers, to compare")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args()

    texts = [path.read_text(encoding="utf-8") for path in args.train]
    if args.valid is None:
        held = "".join(text[len(text) * 9 // 10 :] for text in texts)
        texts = [text[: len(text) * 9 // 10] for text in texts]
    else:
        held = args.valid.read_text(encoding="utf-8")
    tokenizer = tokenizer_of(texts, args.words, args.output)
    ids, test = (torch.tensor(tokenizer("".join(t), verbose=False)["input_ids"]) for t in (texts, [held]))
    if min(len(ids), len(test)) <= args.length:
        parser.error(f"the texts have {len(ids)} and {len(test)} tokens: a window of {args.length} wants more.")

    torch.manual_seed(args.seed)
    eos = tokenizer.convert_tokens_to_ids(EOS)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=args.length, n_ctx=args.length, n_embd=args.width, n_layer=args.layers,
        n_head=args.heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=eos, eos_token_id=eos,
    )  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = GPT2LMHeadModel(config).to(device)
    first = args.output / "untrained"
    model.save_pretrained(first)
    begun = time.perf_counter()
    losses = train(model, ids, args, "polyformer")
    figures: dict[str, Any] = {
        "parameters": model.num_parameters(), "tokens": len(ids), "seconds": round(time.perf_counter() - begun, 1),
        "loss": round(sum(losses[-20:]) / len(losses[-20:]), 4),
        "perplexity": round(held_out(model, test, args.length), 3),
        "perplexity, half a window before each token": round(float(perplexity(model, test[:20000])), 3),
        "per word": round(perplexity(model, test[:20000]).per(len(tokenizer.decode(test[:20000]).split())), 2),
    }  # fmt: skip
    model.generation_config = GenerationConfig(
        do_sample=True,
        top_k=40,
        max_new_tokens=min(60, args.length // 2),
        bos_token_id=eos,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    model.save_pretrained(args.output)
    if args.peer:
        import transformers

        peer = transformers.GPT2LMHeadModel.from_pretrained(first).to(device)
        begun = time.perf_counter()
        theirs = train(peer, ids, args, "transformers")
        figures |= {
            "seconds of transformers": round(time.perf_counter() - begun, 1),
            "loss of transformers": round(sum(theirs[-20:]) / len(theirs[-20:]), 4),
            "perplexity of transformers": round(held_out(peer, test, args.length), 3),
            "largest difference of a step's loss": float(f"{max(map(abs, map(float.__sub__, losses, theirs))):.1e}"),
        }
    for file in first.iterdir():
        file.unlink()
    first.rmdir()
    draw_curve(losses, args.output / "loss.png")
    if args.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:45} {value:>12,}" if isinstance(value, int) else f"{name:45} {value:>12}")
    print(f"\nsaved in {args.output}; now: polyformer generate 'Once' --model {args.output} --stream")


def draw_curve(losses: list[float], path: Path) -> None:
    """The loss over the steps as a picture, where matplotlib is there."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    mean = torch.tensor(losses).unfold(0, min(20, len(losses)), 1).mean(1)
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot(losses, color="0.8", linewidth=0.7)
    axes.plot(range(len(losses) - len(mean), len(losses)), mean, color="tab:blue")
    axes.set(xlabel="step", ylabel="loss (nats a token)")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
