"""Prompts to texts, conversations, `polyformer generate`: over a tiny model whose words are bytes."""

import json
import re

import pytest
import torch

import polyformer
from polyformer.cli import main
from polyformer.pipelines import Conversation, pipeline
from polyformer.tokenizers.byte_level import BYTE_OF

EOS = "<|endoftext|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that has learnt nothing, but to come to an end now and then."""
    folder = tmp_path_factory.mktemp("writer")
    vocab = BYTE_OF | {EOS: 256}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    config = polyformer.GPT2Config(
        vocab_size=257, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=256, eos_token_id=256
    )
    torch.manual_seed(3)
    model = polyformer.GPT2LMHeadModel(config)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.7 if p.dim() > 1 else 0.2)
    model.save_pretrained(folder)
    polyformer.GPT2Tokenizer(folder / "vocab.json", folder / "merges.txt").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def write(folder):
    return pipeline("text-generation", folder)


PROMPTS = ["Once", "There was a time when", "A", "Twelve men and"]


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 9},
        {"max_new_tokens": 7, "num_beams": 3, "num_return_sequences": 2},
        {"max_length": 30, "no_repeat_ngram_size": 2},
        {"max_length": 29, "num_beams": 2, "length_penalty": 2.0},
        {"max_new_tokens": 8, "do_sample": True, "seed": 5, "num_return_sequences": 2},
    ],
)
def test_a_batch_of_ragged_prompts_is_each_alone(write, options):
    together = write(PROMPTS, **options)
    assert [len(found) for found in together] == [options.get("num_return_sequences", 1)] * 4
    for number, prompt in enumerate(PROMPTS):
        if "seed" in options:  # a draw hangs on the seed and the prompt's number
            assert write([*PROMPTS[:number], prompt], **options)[number] == together[number]
        else:
            assert write(prompt, **options) == together[number]
        assert all(one["generated_text"].startswith(prompt) for one in together[number])


def test_answers_are_what_generate_writes(write):
    tokenizer, model = write.tokenizer, write.model
    (found,) = write("There was", max_new_tokens=12, return_tensors=True)
    ids = model.generate(tokenizer("There was", return_tensors="pt")["input_ids"], max_new_tokens=12)[0]
    ids = ids[: (ids == 256).nonzero()[0, 0] + 1] if (ids == 256).any() else ids
    assert torch.equal(found["generated_token_ids"], ids)
    assert found["generated_text"] == tokenizer.decode(ids, skip_special_tokens=True)
    (rest,) = write("There was", max_new_tokens=12, return_full_text=False)
    assert "There was" + rest["generated_text"] == found["generated_text"]


def test_all_shapes_of_input(write):
    one, options = write("Once", max_new_tokens=4), {"max_new_tokens": 4}
    assert write(["Once"], **options) == [one]
    assert list(write((text for text in ["Once"] * 3), **options)) == [one] * 3
    empty = write("", **options)[0]["generated_text"]
    bos = write.model.generate(torch.tensor([[256]]), **options)[0, 1:]
    assert empty == write.tokenizer.decode(bos, skip_special_tokens=True)


def test_streamed_pieces_are_the_text(write):
    whole = write("Once upon", max_new_tokens=20, return_full_text=False)[0]["generated_text"]
    pieces = list(write.streamed("Once upon", max_new_tokens=20))
    assert "".join(pieces) == whole


def test_a_prefix_is_read_and_left_out(write):
    (found,) = write("Once", prefix="It was long ago. ", max_new_tokens=10)
    (whole,) = write("It was long ago. Once", max_new_tokens=10)
    assert found["generated_text"] == whole["generated_text"].removeprefix("It was long ago. ")


def test_a_text_stops_at_a_string(write):
    (free,) = write("Once", max_new_tokens=20, return_full_text=False)
    stop = free["generated_text"][3:5]
    (cut,) = write("Once", max_new_tokens=20, return_full_text=False, stop_strings=[stop])
    assert cut["generated_text"].endswith(stop) and free["generated_text"].startswith(cut["generated_text"])


def test_prompts_that_are_too_long(write):
    long = "x" * 60
    with pytest.raises(
        ValueError, match=r"the text has 60 tokens, and there is room for 54 .* for 10 more: shorten it"
    ):
        write(long, max_new_tokens=10)
    (found,) = write(long, max_new_tokens=10, handle_long_generation="hole")
    (want,) = write("x" * 54, max_new_tokens=10, return_full_text=False)
    assert found["generated_text"] == long + want["generated_text"]
    with pytest.raises(ValueError, match="text 1 has 60 tokens, and there is room for 19"):
        write(["a", long])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda w: w("a", max_new_token=3), TypeError, "max_new_tokens"),
        (lambda w: w(3), TypeError, "is a int|is an int|text"),
        (lambda w: w(["a", "b"], streamer=object()), ValueError, "a streamer gets the tokens of one text"),
        (lambda w: w("a", handle_long_generation="cut"), ValueError, "there is 'hole', or nothing"),
    ],
)
def test_what_cannot_be(write, call, error, message):
    with pytest.raises(error, match=message):
        call(write)


def test_a_model_that_cannot_go_on():
    config = polyformer.BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    with pytest.raises(TypeError, match="load the model with AutoModelForCausalLM"):
        pipeline("text-generation", polyformer.BertModel(config), tokenizer=object())


# ---- conversations ---------------------------------------------------------------------------------------------------


def test_a_conversation_is_its_turns_each_ended_by_eos(folder):
    talk = pipeline("conversational", folder)
    one = Conversation("Hello there")
    assert talk(one, max_new_tokens=6) is one
    assert one.new_user_input is None and one.past_user_inputs == ["Hello there"] and len(one.generated_responses) == 1
    one.add_user_input("And then?")
    answer = one.generated_responses[0]
    ids = talk.tokenizer(f"Hello there{EOS}{answer}{EOS}And then?{EOS}", return_tensors="pt")["input_ids"]
    want = talk.model.generate(ids, max_new_tokens=6)[0, ids.shape[1] :]
    talk([one], max_new_tokens=6)
    assert one.generated_responses[1] == talk.tokenizer.decode(want, skip_special_tokens=True).strip()
    assert list(one.iter_texts())[:2] == [(True, "Hello there"), (False, answer)]
    assert re.match(r"Conversation [0-9a-f-]{36}\nuser >> Hello there\nbot >> ", repr(one))


def test_the_oldest_turns_of_a_long_conversation_are_left_out(folder):
    talk = pipeline("conversational", folder)
    one = Conversation("new", past_user_inputs=["old " * 20], generated_responses=["yes"])
    talk(one, max_new_tokens=10)
    assert len(one.generated_responses) == 2


def test_what_a_conversation_cannot_be(folder):
    talk = pipeline("conversational", folder)
    with pytest.raises(ValueError, match="has nothing to answer: call add_user_input"):
        talk(Conversation())
    with pytest.raises(TypeError, match="give a Conversation"):
        talk(["Hello"])
    with pytest.raises(ValueError, match="is not answered yet"):
        Conversation("a").add_user_input("b")
    with pytest.raises(ValueError, match="give one answer for each"):
        Conversation("a", past_user_inputs=["b"])


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command(folder, write, capsys):
    want = write("Once", max_new_tokens=8)[0]["generated_text"]
    args = ["generate", "Once", "--model", str(folder), "--max-new-tokens", "8", "--strategy", "greedy"]
    for more in ([], ["--stream"]):
        assert main([*args, *more]) == 0
        assert capsys.readouterr().out == want + "\n"
    assert main([*args, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"prompt": "Once", "generated_text": [want]}]


@pytest.mark.parametrize("strategy", ["sample", "beam", "beam-sample", "group-beam", "contrastive", "lookup"])
def test_every_strategy(folder, capsys, strategy):
    args = ["generate", "Once", "--model", str(folder), "--max-new-tokens", "5", "--seed", "1", "--strategy", strategy]
    assert main(args) == 0
    first = capsys.readouterr().out
    assert main(args) == 0
    assert first.startswith("Once") and capsys.readouterr().out == first


def test_a_draft_writes_what_the_model_alone_would(folder, capsys):
    args = ["generate", "Once", "--model", str(folder), "--max-new-tokens", "8"]
    assert main([*args, "--strategy", "greedy"]) == 0
    alone = capsys.readouterr().out
    assert main([*args, "--strategy", "assisted", "--draft", str(folder)]) == 0
    assert capsys.readouterr().out == alone


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["--strategy", "greedy", "--temperature", "0.5", "--top-p", "0.9"],
            "--temperature and --top-p without effect",
        ),
        (["--strategy", "sample", "--temperature", "0.5"], ""),
        (["--strategy", "contrastive", "--top-k", "3"], ""),
    ],
)
def test_options_of_drawing_where_no_word_is_drawn(folder, capsys, args, said):
    assert main(["generate", "Once", "--model", str(folder), "--max-new-tokens", "2", *args]) == 0
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == bool(said)


def test_a_conversation_on_the_command_line(folder, capsys, tmp_path):
    turns = {"past_user_inputs": ["Who?"], "generated_responses": ["You."]}
    (tmp_path / "talk.jsonl").write_text(json.dumps("Once") + "\n" + json.dumps({"text": "And?"} | turns) + "\n")
    args = ["run", "conversational", "--model", str(folder), "--set", "max_new_tokens=5"]
    assert main([*args, "--input", str(tmp_path / "talk.jsonl"), "--json"]) == 0
    talks = [Conversation("Once"), Conversation("And?", **turns)]
    pipeline("conversational", folder)(talks, max_new_tokens=5)
    found = [one["result"]["generated_text"] for one in json.loads(capsys.readouterr().out)]
    assert found == [talk.generated_responses[-1] for talk in talks]
    assert main([*args, "Once"]) == 0
    assert capsys.readouterr().out.startswith("Once\n  ")


def test_prompts_from_standard_input(folder, capsys, monkeypatch):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("Once\n\nA\n"))
    assert main(["generate", "-", "--model", str(folder), "--max-new-tokens", "3", "--json"]) == 0
    assert [one["prompt"] for one in json.loads(capsys.readouterr().out)] == ["Once", "A"]
    monkeypatch.setattr("sys.stdin", io.StringIO("Once\n\n" + "x" * 62 + "\n"))
    assert main(["generate", "-", "--model", str(folder), "--max-new-tokens", "3"]) == 1
    said = capsys.readouterr().err
    assert "line 3 of standard input has 62 tokens" in said and "or pass --set handle_long_generation=hole" in said


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["Once"], 2, "generate has no default model"),
        (["a", "b", "--stream", "--model", "FOLDER"], 2, "--stream prints one text"),
        (["a", "--strategy", "assisted", "--model", "FOLDER"], 2, "--draft MODEL belong together"),
        (["a", "--model", "FOLDER", "--set", "top_k"], 2, "--set wants NAME=VALUE"),
        (["a", "--model", "FOLDER", "--set", "topk=3"], 1, "top_k"),
        (["a", "--model", "FOLDER", "--strategy", "beams"], 2, "invalid choice: 'beams'"),
        (["a", "--model", "/nowhere"], 1, "/nowhere"),
        (["a", "--model", "FOLDER", "--num-return", "3"], 2, "--num-return 3 wants --strategy sample"),
        (["a", "--model", "FOLDER", "--max-new-tokens", "90"], 1, "the text has 1 token, and there is room for 0 (the"),
    ],
)
def test_errors_are_one_sentence(folder, capsys, args, code, message):
    assert main(["generate", *(str(folder) if a == "FOLDER" else a for a in args)]) == code
    said = capsys.readouterr()
    assert said.out == "" and message in said.err and len(said.err.strip().splitlines()) == 1
