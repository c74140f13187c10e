"""`aptlab generate`, in this process, on a real checkpoint of a tiny random model."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aptlab.commands import generate as command
from aptlab.commands.generate import read_generate_request
from aptlab.errors import AptlabError, CheckpointError, ConfigError
from aptlab.sample import ChatPrompt
from aptlab.sample.prompts import read_prompts
from tests.commands.trained import make_run, write_texts


def prompts_of(args):
    request = read_generate_request(args)
    return read_prompts(request.prompt, request.prompts_file, chat=request.chat)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("generate")
    make_run(folder / "outputs", texts=write_texts(folder / "texts.jsonl"))
    return folder / "outputs"


@pytest.fixture
def run(root):
    return lambda *args: command.run([f"paths.root='{root}'", "device=cpu", "max_new_tokens=8", *args])


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_prompt_and_its_continuation_go_to_stdout_and_the_status_to_stderr(run, capsys, tmp_path):
    assert run("prompt=def main(x=1): [", "seed=5", "out=a.jsonl") == 0
    out, err = capsys.readouterr()
    assert out.startswith("def main(x=1): [")
    assert len(out) > len("def main(x=1): [\n")
    count = len(lines(tmp_path / "a.jsonl")[0]["tokens"])
    assert err.splitlines()[-1].startswith(f"{count} tokens, ")
    assert err.splitlines()[-1].endswith("tokens/s, seed 5")


def test_a_streamed_text_equals_one_shown_at_the_end(run, capsys):
    run("prompt=abc", "max_new_tokens=40")
    streamed = capsys.readouterr().out
    run("prompt=abc", "max_new_tokens=40", "stream=false")
    assert capsys.readouterr().out == streamed


def test_control_characters_are_spelled_out_on_the_screen_and_kept_in_the_file(run, capsys, tmp_path, monkeypatch):
    bell = "a\x1b[31m\x07\x08\r\x9b\x7f\tb\n"
    monkeypatch.setattr("aptlab.data.tokenizers.bytes.ByteStream.push", lambda self, token: "\x1b")
    for words in (["stream=true"], ["stream=false"], ["samples=2"]):
        run(f"prompt={bell}", "out=a.jsonl", *words)
        said = capsys.readouterr().out
        assert r"a\x1b[31m\x07\x08\x0d\x9b\x7f" + "\tb\n" in said
        assert not set(said) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}
        assert lines(tmp_path / "a.jsonl")[0]["prompt"] == bell


def test_samples_count_the_seed_on_and_equal_single_texts(run, tmp_path, capsys):
    run("prompt=abc", "samples=3", "seed=2", "batch=2", "out=all.jsonl")
    err = capsys.readouterr().err
    assert "seed 2 to 4" in err
    rows = lines(tmp_path / "all.jsonl")
    assert [row["seed"] for row in rows] == [2, 3, 4]
    assert len({row["text"] for row in rows}) == 3
    run("prompt=abc", "seed=3", "out=one.jsonl")
    assert lines(tmp_path / "one.jsonl") == [rows[1]]
    assert rows[1].keys() == {"prompt", "text", "tokens", "seed", "reason"}


def test_prompts_of_a_file_are_read_and_a_row_does_not_depend_on_the_others(run, tmp_path):
    (tmp_path / "p.txt").write_text("one\n\na longer prompt\n")
    (tmp_path / "p.jsonl").write_text('{"prompt": "a longer prompt"}\n')
    run("prompts_file=p.txt", "out=two.jsonl")
    run("prompts_file=p.jsonl", "out=one.jsonl")
    two = lines(tmp_path / "two.jsonl")
    assert [row["prompt"] for row in two] == ["one", "a longer prompt"]
    assert lines(tmp_path / "one.jsonl") == two[1:]


def test_a_dash_reads_stdin(run, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.StringIO("from stdin\n"))
    run("prompt=-", "out=a.jsonl")
    assert capsys.readouterr().out.startswith("from stdin")
    assert lines(tmp_path / "a.jsonl")[0]["prompt"] == "from stdin"


def test_an_empty_prompt_starts_a_new_document(run, tmp_path):
    run("out=a.jsonl")
    run("prompt=", "out=b.jsonl")
    assert lines(tmp_path / "a.jsonl") == lines(tmp_path / "b.jsonl")
    assert lines(tmp_path / "a.jsonl")[0]["tokens"]


def test_a_stop_string_ends_the_text_and_is_not_part_of_it(run, tmp_path):
    run("prompt=abc", "temperature=0", "max_new_tokens=12", "out=free.jsonl")
    free = lines(tmp_path / "free.jsonl")[0]["text"]
    stop = next(char for char in free[2:] if char.isprintable() and char not in "\"'\\$,[]{}=: " and char != "\ufffd")
    run("prompt=abc", "temperature=0", "max_new_tokens=12", f"stop=['{stop}']", "out=stopped.jsonl")
    row = lines(tmp_path / "stopped.jsonl")[0]
    assert row["reason"] == "stop"
    assert row["text"] == free[: free.index(stop)]


def test_stop_strings_read_newline_and_tab():
    assert read_generate_request([r'stop=["\n\n", "a\tb"]']).stop == ["\n\n", "a\tb"]


def test_a_text_beyond_the_trained_context_is_warned_of_once(run, capsys):
    run("prompt=" + "x" * 20, "samples=2")
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warnings == [
        "warning: 20 prompt tokens + 8 new ones are more than the trained context=16; the text may fall apart beyond it"
    ]
    run("prompt=abc")
    assert "warning" not in capsys.readouterr().err


def test_an_interrupt_keeps_the_text_so_far_and_gives_130(run, monkeypatch, capsys, tmp_path):
    from aptlab.sample import texts

    push, count = texts.GrowingText.push, iter(range(100))

    def interrupted(text, token):
        if next(count) == 3:
            raise KeyboardInterrupt
        return push(text, token)

    monkeypatch.setattr(texts.GrowingText, "push", interrupted)
    assert run("prompt=abc", "out=a.jsonl") == 130
    assert capsys.readouterr().err.strip().endswith("seed 0, interrupted")
    assert lines(tmp_path / "a.jsonl")[0]["reason"] == "interrupted"


class Closed(io.StringIO):
    """A pipe whose reader has gone after the first piece of text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.file = path.open("w")

    def write(self, text: str) -> int:
        if self.tell():
            raise BrokenPipeError
        return super().write(text)

    def fileno(self) -> int:
        return self.file.fileno()


def test_a_reader_that_goes_away_ends_the_text_quietly(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Closed(tmp_path / "pipe"))
    assert run("prompt=abc") == 0
    os.write(sys.stdout.fileno(), b"goes nowhere")
    assert (tmp_path / "pipe").read_text() == ""


@pytest.mark.slow
def test_a_closed_pipe_is_quiet(root):
    code = "import sys; from aptlab.commands.generate import run; sys.exit(run(sys.argv[1:]))"
    args = [f"paths.root='{root}'", "device=cpu", "prompt=abc", "max_new_tokens=300", "samples=2"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code, *args], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["temperature=-1"], r"temperature: must be a finite number >= 0, got -1"),
        (["top_p=1.5"], r"top_p: must be in \[0, 1\], got 1\.5"),
        (["min_p=2"], r"min_p: must be in \[0, 1\], got 2"),
        (["top_k=1.5"], r"top_k: expects int, got 1\.5"),
        (["repetition_penalty=0"], r"repetition_penalty: must be a finite number > 0, got 0"),
        (["samples=0"], r"samples: must be a finite number >= 1, got 0"),
        (["max_new_tokens=many"], r"max_new_tokens: expects int, got 'many'"),
        (["stream=perhaps"], r"stream: expects bool, got 'perhaps'"),
        (["stop=User"], r"stop: expects a list of str, got 'User'; write \[User\]"),
        (["stop=['']"], r"stop: an empty string would end every text at once"),
        (["temprature=1"], r"temprature: unknown top-level key; did you mean temperature"),
        (["prompt=a", "prompts_file=b"], r"prompt and prompts_file are both given; keep one"),
        (["prompts_file=none.txt"], r"prompts_file=none\.txt cannot be read: No such file"),
    ],
)
def test_what_is_wrong_is_said_before_torch_is_needed(args, message):
    with pytest.raises(AptlabError, match=message):
        prompts_of(args)


def test_all_problems_are_said_at_once():
    with pytest.raises(AptlabError, match=r"temperature: must be .*\ntop_k: must be "):
        read_generate_request(["temperature=-1", "top_k=-1"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "\n \n", "holds no prompt; write one per line"),
        ("a.jsonl", '{"prompt": "a"}\n{"text": 1}\n', r'a\.jsonl:2 has no text under "prompt"'),
        ("a.jsonl", "hello\n", r"a\.jsonl:1 is not JSON"),
    ],
)
def test_a_prompts_file_that_is_none_is_named_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(AptlabError, match=message):
        prompts_of([f"prompts_file={name}"])


def test_prompts_are_cut_at_line_ends_alone(tmp_path):
    lines = ["one\u2028two", "three\x0cfour\x85five", "six"]
    Path("a.txt").write_bytes("\r\n".join([*lines, ""]).encode())
    assert prompts_of(["prompts_file=a.txt"]) == tuple(lines)
    rows = [json.dumps({"prompt": line, "n": 1}, ensure_ascii=False) for line in lines]
    Path("a.jsonl").write_bytes("\n".join(rows).replace("1}", "7" * 5000 + "}").encode())
    assert prompts_of(["prompts_file=a.jsonl"]) == tuple(lines)


def test_without_a_checkpoint_the_place_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="outputs: no such file or folder"):
        command.run(["prompt=a", "device=cpu"])


def test_reading_a_request_loads_no_torch():
    code = "import sys; from aptlab.commands.generate import read_generate_request; "
    code += "read_generate_request(['top_k=3']); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_text_beyond_the_positions_of_the_model_is_refused_before_its_prompt_is_shown(tmp_path, capsys):
    placed = make_run(tmp_path / "outputs", texts=write_texts(tmp_path / "texts.jsonl"), extra=("embed=learned",))
    with pytest.raises(
        AptlabError, match=r"prompt 0 has 3 tokens, with max_new_tokens=99999 more than the \d+ positions"
    ):
        command.run([f"ckpt={placed}", "device=cpu", "prompt=abc", "max_new_tokens=99999"])
    assert capsys.readouterr().out == ""


def test_a_chat_is_read_from_a_file_and_needs_a_template(run, tmp_path):
    (tmp_path / "chat.jsonl").write_text('{"messages": [{"role": "user", "content": "hi"}]}\n{"prompt": "x"}\n')
    chat, text = prompts_of([f"prompts_file={tmp_path / 'chat.jsonl'}"])
    assert (chat, text) == (ChatPrompt([{"role": "user", "content": "hi"}]), "x")
    assert prompts_of(["prompt=hi", "chat=true"]) == (chat,)
    with pytest.raises(ConfigError, match="this tokenizer has no chat template; give prompts as text, or"):
        run("prompt=hi", "chat=true")
