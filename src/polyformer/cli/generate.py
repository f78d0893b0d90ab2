"""`polyformer generate`: go on with a text."""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polyformer.cli.common import Usage, add_device, add_json, command, own_words, positive, print_json, say

if TYPE_CHECKING:
    from polyformer.generation.config import GenerationConfig

# What each strategy asks of `generate` unless options of the same names say otherwise.
STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "greedy": {"do_sample": False, "num_beams": 1},
    "sample": {"do_sample": True, "num_beams": 1},
    "beam": {"do_sample": False, "num_beams": 4},
    "beam-sample": {"do_sample": True, "num_beams": 4},
    "group-beam": {"do_sample": False, "num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "contrastive": {"do_sample": False, "num_beams": 1, "penalty_alpha": 0.6, "top_k": 4},
    "lookup": {"do_sample": False, "num_beams": 1, "prompt_lookup_num_tokens": 10},
    "assisted": {"do_sample": False, "num_beams": 1},
}
EXAMPLES = """\
  polyformer generate "Once upon a time" --model gpt2 --stream
  polyformer generate "Once upon a time" --model gpt2 --strategy sample --temperature 0.8 --top-p 0.9 --seed 1
  polyformer generate "The answer is" --model ./my-gpt2 --strategy beam --num-return 3 --max-new-tokens 20
  polyformer generate "def add(" --model ./big --strategy assisted --draft ./small
  polyformer generate "Q: Who wrote it? A:" --model ./my-gpt2 --stop "Q:" --set no_repeat_ngram_size=3
  cat prompts.txt | polyformer generate - --model gpt2 --json
"""
MORE = """\
Strategies: {strategies}. The model's own way, which its
generation_config.json says, is taken where no strategy is named. --set passes any option of generate."""


def add(commands: Any) -> None:
    names = ", ".join(STRATEGIES)
    parser = command(commands, "generate", "Go on with a text.", EXAMPLES, MORE.format(strategies=names))
    parser.add_argument("prompts", metavar="PROMPT", nargs="+", help="texts to go on with; - reads one a line")
    parser.add_argument(
        "--model", metavar="M", help="a causal language model: a folder, or a name on the hub; required"
    )
    parser.add_argument("--strategy", metavar="S", choices=[*STRATEGIES], help="how words are chosen, see above")
    parser.add_argument("--stream", action="store_true", help="print the text while it is written (one prompt)")
    parser.add_argument("--max-new-tokens", metavar="N", type=positive, default=50, help="50 by default")
    parser.add_argument(
        "--num-return", metavar="N", type=positive, default=1, help="texts a prompt, drawn or of beams; 1 by default"
    )
    parser.add_argument("--seed", metavar="N", type=int, help="makes sampling repeatable")
    parser.add_argument("--stop", metavar="TEXT", action="append", help="end a text once it has this; may be repeated")
    parser.add_argument("--temperature", metavar="T", type=float, help="of sampling: above 1 bolder, below 1 safer")
    parser.add_argument("--top-k", metavar="K", type=int, help="sample among the K likeliest words")
    parser.add_argument("--top-p", metavar="P", type=float, help="sample among the likeliest words, P likely together")
    parser.add_argument("--num-beams", metavar="N", type=positive, help="beams a prompt")
    parser.add_argument("--prefix", metavar="TEXT", help="read before every prompt, and not printed")
    parser.add_argument("--draft", metavar="M", help="assisted: a small model of the same vocabulary that writes ahead")
    parser.add_argument("--no-prompt", action="store_true", help="print what is written without its prompt")
    parser.add_argument(
        "--set", metavar="NAME=VALUE", action="append", default=[], help="any option of generate; a JSON value or text"
    )
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if not args.model:
        raise Usage("generate has no default model: name one, such as --model gpt2 or --model FOLDER.")
    options = _options(args)
    prompts, names = _prompts(args.prompts)
    if args.stream and (len(prompts) > 1 or args.json or args.num_return > 1 or options.get("num_beams", 1) > 1):
        raise Usage("--stream prints one text as it is written: one prompt, without --json, beams or --num-return.")
    from polyformer.core.auto import AutoConfig, AutoModelForCausalLM
    from polyformer.generation.config import option_names
    from polyformer.pipelines import pipeline
    from polyformer.pipelines.rows import naming

    if AutoConfig.from_pretrained(args.model).is_encoder_decoder:
        raise Usage(f"{args.model} writes texts for texts: `polyformer run text2text-generation` asks it to.")
    write = pipeline("text-generation", args.model, device=args.device)
    _check(args, write.settings({name: value for name, value in options.items() if name in option_names()}))
    if args.draft:
        options["assistant_model"] = AutoModelForCausalLM.from_pretrained(args.draft).to(write.device)
    settable = [*option_names(), "handle_long_generation"]
    with naming(names.__getitem__), own_words(dict.fromkeys(settable, "--set {name}={value}")):
        write_out(args, write, prompts, options)


def write_out(args: argparse.Namespace, write: Any, prompts: list[str], options: dict[str, Any]) -> None:
    """Write, and print what was written."""
    if args.stream:
        if not args.no_prompt:
            print(prompts[0], end="", flush=True)
        for piece in write.streamed(prompts[0], **options):
            print(piece, end="", flush=True)
        print()
        return
    asked = prompts if len(prompts) > 1 else prompts[0]
    found = write(asked, return_full_text=not args.no_prompt, **options)
    answers = found if len(prompts) > 1 else [found]
    if args.json:
        texts = [[one["generated_text"] for one in found] for found in answers]
        print_json([{"prompt": p, "generated_text": t} for p, t in zip(prompts, texts, strict=True)])
        return
    several = len(prompts) > 1 or args.num_return > 1
    for number, one in enumerate((one for found in answers for one in found), 1):
        if several:
            print(("\n" if number > 1 else "") + f"--- {number}")
        print(one["generated_text"])


def _prompts(given: list[str]) -> tuple[list[str], list[str]]:
    """The prompts, and what messages call each of several."""
    if given != ["-"]:
        return given, [f"text {number}" for number in range(1, len(given) + 1)]
    lines = {number: line.rstrip("\r\n") for number, line in enumerate(sys.stdin, 1) if line.strip()}
    if not lines:
        raise Usage("there is no prompt on standard input: give one a line.")
    return list(lines.values()), [f"line {number} of standard input" for number in lines]


def _check(args: argparse.Namespace, how: "GenerationConfig") -> None:
    """Say which arguments do nothing, or cannot be done, as the model writes."""
    if args.num_return > how.num_beams and not how.do_sample:
        raise Usage(f"--num-return {args.num_return} wants --strategy sample, or as many --num-beams.")
    of_drawing = {"--temperature": args.temperature, "--top-k": args.top_k, "--top-p": args.top_p}
    idle = [name for name, value in of_drawing.items() if value is not None]
    if idle and not how.do_sample and not how.penalty_alpha:
        say(f"{' and '.join(idle)} without effect, since no word is drawn: add --strategy sample.")


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """What the arguments ask of the pipeline."""
    if (args.strategy == "assisted") != bool(args.draft):
        raise Usage("--strategy assisted and --draft MODEL belong together: give both.")
    options: dict[str, Any] = dict(STRATEGIES.get(args.strategy, {}))
    own = {
        "max_new_tokens": args.max_new_tokens, "num_return_sequences": args.num_return, "temperature": args.temperature,
        "top_k": args.top_k, "top_p": args.top_p, "num_beams": args.num_beams, "stop_strings": args.stop,
        "seed": args.seed, "prefix": args.prefix,
    }  # fmt: skip
    options |= {name: value for name, value in own.items() if value is not None}
    for setting in args.set:
        name, equals, value = setting.partition("=")
        if not equals:
            raise Usage(f"--set wants NAME=VALUE, not {setting!r}.")
        try:
            options[name.strip()] = json.loads(value)
        except json.JSONDecodeError:
            options[name.strip()] = value
    return options
