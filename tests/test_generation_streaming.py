"""Texts as they are written, and where they stop: pieces joined are the text, whatever the vocabulary does."""

import threading

import pytest
import torch

from generation_toys import PROMPTS, tiny, written
from polyformer.generation import StopStrings, TextIteratorStreamer, TextStreamer, stream

TEXTS = [
    "Don't stop, it's a naïve café 😀😀 test. 12,000 things!",
    "日本語 and ελληνικά .  two  spaces , and ' quotes '\n\nnew lines",
    "e\u0301 combined, 👩‍👩‍👧 joined, \u200b nothing",
]
KINDS = ["gpt2", "bert", "t5", "openai-gpt", "ctrl", "xlnet"]


class Pieces(TextStreamer):
    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        self.pieces, self.ended = [], 0

    def on_finalized_text(self, text, stream_end=False):
        self.pieces += [text] if text else []
        self.ended += stream_end


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clean", [None, True, False])
def test_pieces_joined_are_the_text(kind, clean, toks):
    tokenizer = toks[kind]
    how = {} if clean is None else {"clean_up_tokenization_spaces": clean}
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        for start in (1, len(ids) // 2):
            for skip in (False, True):
                shown = Pieces(tokenizer, skip_prompt=skip, **how)
                shown.put(torch.tensor([ids[:start]]))
                for token in ids[start:]:
                    shown.put(torch.tensor([token]))
                shown.end()
                whole, prompt = tokenizer.decode(ids, **how), tokenizer.decode(ids[:start], **how)
                assert shown.ended == 1 and shown.tokens == []
                if not skip:
                    assert "".join(shown.pieces) == whole
                elif whole.startswith(prompt):
                    assert "".join(shown.pieces) == whole[len(prompt) :]


def test_pieces_come_as_soon_as_they_are_sure(toks):
    """Characters of several tokens come whole, a space that a full stop may follow with what follows; else at once."""
    tokenizer = toks["gpt2"]
    ids = tokenizer.encode("a 😀 b", add_special_tokens=False)
    shown = Pieces(tokenizer)
    before = []
    for token in ids:
        shown.put(torch.tensor([token]))
        before.append("".join(shown.pieces))
    assert not any("\ufffd" in text for text in before)
    assert before[-1] == "a 😀 b" and before[0] == "a"
    assert len(set(before)) < len(ids)  # the emoji is several tokens
    ids = tokenizer.encode("it is n't so , ' is it ?", add_special_tokens=False)
    shown = Pieces(tokenizer)
    for token in ids:
        shown.put(torch.tensor([token]))
        text = "".join(shown.pieces)
        assert not text.endswith((" ", " '", " n")) and tokenizer.decode(ids).startswith(text)
        assert len(tokenizer.decode(shown.tokens)) - len(text) <= 3


def test_it_prints(toks, capsys):
    tokenizer = toks["gpt2"]
    ids = tokenizer.encode("hello you", add_special_tokens=False)
    shown = TextStreamer(tokenizer)
    shown.put(torch.tensor([ids]))
    shown.end()
    assert capsys.readouterr().out == "hello you\n"
    with pytest.raises(ValueError, match="a streamer shows one text"):
        shown.put(PROMPTS)


class Numbers:
    """A tokenizer whose texts are numbers."""

    eos_token_id = 7

    def decode(self, ids, **how):
        return "".join(f"{i} " for i in ids)


@pytest.mark.parametrize(
    "options",
    [{}, {"do_sample": True}, {"penalty_alpha": 0.5, "top_k": 3}, {"prompt_lookup_num_tokens": 2}],
    ids=["greedy", "sampled", "contrastive", "lookup"],
)
def test_what_is_streamed_is_what_is_written(options):
    model = tiny()
    shown = Pieces(Numbers())
    text = written(model, PROMPTS[:1], streamer=shown, max_new_tokens=9, **options)[0]
    assert "".join(shown.pieces) == Numbers().decode(text.tolist()) and shown.ended == 1
    with pytest.raises(ValueError, match="a streamer: its texts change to the last word, so set num_beams=1"):
        written(model, PROMPTS[:1], streamer=shown, num_beams=2)


def test_every_row_is_told_to_a_streamer_that_can_have_them():
    model, seen = tiny(), []

    class All:
        def put(self, value):
            seen.append(value)

        def end(self):
            seen.append(None)

    text = written(model, streamer=All())
    assert torch.equal(torch.cat([seen[0], torch.stack(seen[1:-1], 1)], 1), text) and seen[-1] is None


def test_an_iterator_of_another_threads_text():
    model, shown = tiny(), TextIteratorStreamer(Numbers(), skip_prompt=True, timeout=60)
    work = threading.Thread(target=written, args=(model, PROMPTS[:1]), kwargs={"streamer": shown, "eos_token_id": None})
    work.start()
    pieces = list(shown)
    work.join()
    want = written(model, PROMPTS[:1], eos_token_id=None)[0, 3:].tolist()
    assert pieces == [f"{i} " for i in want]


def test_a_loop_over_the_text():
    model = tiny()
    asked = dict(eos_token_id=None, max_new_tokens=8, pad_token_id=0)
    want = model.generate(PROMPTS[:1], **asked)[0, 3:].tolist()
    assert list(stream(model.generate, PROMPTS[:1], tokenizer=Numbers(), **asked)) == [f"{i} " for i in want]
    threads = threading.active_count()
    for _ in stream(model.generate, PROMPTS[:1], tokenizer=Numbers(), **{**asked, "max_new_tokens": 60}):
        break  # and the thread ends
    assert threading.active_count() == threads
    with pytest.raises(TypeError, match="did you mean 'top_k'"):
        list(stream(model.generate, PROMPTS[:1], tokenizer=Numbers(), topk=3))

    def breaks(ids, scores):
        raise ZeroDivisionError

    shown = []
    with pytest.raises(ZeroDivisionError):
        shown += stream(model.generate, PROMPTS[:1], tokenizer=Numbers(), logits_processor=[breaks], **asked)


# ---- stop strings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5"])
def test_a_string_stops_where_the_text_has_it_first(kind, toks):
    """Of all beginnings of a text: the first whose decoding has the string, wherever tokens begin and end."""
    tokenizer = toks[kind]
    for text in (*TEXTS, "the stopping of the stop, stop."):
        ids = tokenizer.encode(text, add_special_tokens=False)
        whole = tokenizer.decode(ids)
        strings = {whole[i : i + n] for n in (1, 3, 6) for i in range(2, len(whole) - n, 4)}
        for string in sorted(s for s in strings if "\ufffd" not in s):
            stops = StopStrings(string, tokenizer.decode)
            want = next(n for n in range(1, len(ids) + 1) if string in tokenizer.decode(ids[:n]))
            assert [stops.completed(ids[:n]) for n in range(1, want + 1)] == [False] * (want - 1) + [True], string


def test_a_string_may_begin_in_the_prompt_but_not_lie_there(toks):
    tokenizer = toks["gpt2"]
    stops = StopStrings(["one two", "zz"], tokenizer.decode)
    ids = tokenizer.encode("one two three", add_special_tokens=False)
    assert not stops.completed(ids)
    cut = next(n for n in range(1, len(ids)) if tokenizer.decode(ids[:n]) == "one two")
    assert stops.completed(ids[:cut])


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 2}])
def test_stop_strings_at_work(options):
    model, asked = tiny(), dict(eos_token_id=None, max_new_tokens=12, **options)
    free = written(model, **asked)
    string = Numbers().decode(free[1, 3:5].tolist())[1:]  # from within a token
    text = written(model, stop_strings=["x", string], tokenizer=Numbers(), **asked)
    for prompt, plain, row in zip(PROMPTS.tolist(), free.tolist(), text.tolist(), strict=True):
        before = len(Numbers().decode(prompt)) - len(string) + 1  # it may begin in the prompt
        ends = (n for n in range(4, 16) if Numbers().decode(row[:n]).find(string, before) >= 0)
        end = next(ends, len(row))
        assert not any(row[end:])
        if "num_beams" not in options:
            assert row[:end] == plain[:end]
    assert not any(text[1, 5:].tolist()) or "num_beams" in options
    with pytest.raises(ValueError, match="give generate the tokenizer"):
        written(model, stop_strings="x")
    with pytest.raises(ValueError, match="none of them empty"):
        written(model, stop_strings=[""], tokenizer=Numbers())
