"""One tokenizer, eight threads, other settings in each: every answer is what it is alone."""

import random
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tokenizer_zoo import NASTY, SENTENCES, answer, docstrings, each

THREADS = 8


def settings_of(thread):
    """What a thread asks for: no two ask for the same."""
    how = {
        "truncation": [True, "only_first", "longest_first", False][thread % 4],
        "max_length": 6 + thread,
        "padding": [False, True, "max_length"][thread % 3],
        "pad_to_multiple_of": [None, None, 1][thread % 3],
        "return_offsets_mapping": thread % 2 == 0,
        "return_special_tokens_mask": True,
    }
    return how | ({"return_overflowing_tokens": True, "stride": 1} if thread in (0, 1, 4, 5) else {})


@each()
@pytest.mark.filterwarnings("ignore:A row is longer:UserWarning")
def test_threads(family, toks):
    tokenizer = toks.fresh(family)  # what it keeps for later is made by several threads at once
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token
    draw = random.Random(0)
    pool = [text for text in [*NASTY, *SENTENCES, *docstrings()[:60]] if len(text) < 200]
    batches = [[draw.choices(pool, k=4) for _ in range(6)] for _ in range(THREADS)]
    together = Barrier(THREADS)

    def work(thread, tokenizer, wait):
        how = settings_of(thread)
        if wait:
            together.wait()
        made = [answer(lambda b=batch: tokenizer(b, **how)) for batch in batches[thread] for _ in range(3)]
        return made, [tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) for text in batches[thread][0]]

    with ThreadPoolExecutor(THREADS) as threads:
        running = [threads.submit(work, n, tokenizer, True) for n in range(THREADS)]
        got = [job.result() for job in running]
    alone = toks.fresh(family)
    alone.pad_token = tokenizer.pad_token
    for thread in range(THREADS):
        want, decoded = work(thread, alone, False)
        assert not any("raises" in columns for columns in want)
        assert got[thread] == (want, decoded)


@each()
def test_threads_that_add_tokens(family, toks):
    """None is lost, and those that only read see a whole vocabulary: the old one or one that has grown."""
    tokenizer = toks.fresh(family)
    before, together = len(tokenizer), Barrier(THREADS)
    known = tokenizer(SENTENCES[0])["input_ids"]

    def work(thread):
        together.wait()
        if thread % 2:
            return sum(tokenizer.add_tokens([f"new{thread}x{n}"]) for n in range(5))
        return all(tokenizer(SENTENCES[0])["input_ids"] == known for _ in range(10))

    with ThreadPoolExecutor(THREADS) as threads:
        results = list(threads.map(work, range(THREADS)))
    assert results[1::2] == [5] * (THREADS // 2) and all(results[::2])
    assert sorted(tokenizer.get_added_vocab().values())[-20:] == list(range(before, before + 20))
    assert len(tokenizer) == before + 20
