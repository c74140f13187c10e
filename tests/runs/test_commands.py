"""A command in a message works as it is typed."""

import shlex

import pytest

from aptlab.runs.commands import write_resume_command


@pytest.mark.parametrize("name", ["outputs/run", "my runs/a", "a'b", "x=1,y", "$HOME"])
def test_a_shell_reads_the_folder_back(name):
    assert shlex.split(write_resume_command(name, "trainer.max_steps=8")) == [
        "aptlab",
        "train",
        f"ckpt={name}",
        "trainer.max_steps=8",
    ]


def test_an_ordinary_folder_is_not_quoted():
    assert write_resume_command("/data/outputs/train/2026-01-02/030405-abcd") == (
        "aptlab train ckpt=/data/outputs/train/2026-01-02/030405-abcd"
    )
