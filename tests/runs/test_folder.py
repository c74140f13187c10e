"""A run folder is new, whole, locked, and the same for all ranks."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from aptlab.errors import AptlabError
from aptlab.runs import Result, RunFolder, collect_environment, ranks
from aptlab.runs import folder as folder_module
from aptlab.runs.atomic import format_yaml, read_yaml, write_text

LAUNCHERS = ("RANK", "LOCAL_RANK", "NODE_RANK", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_PROCID",
             "SLURM_NTASKS", "APTLAB_RUN_DIR", "MASTER_ADDR", "MASTER_PORT", "GROUP_WORLD_SIZE")  # fmt: skip


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ranks, "_asked", {})


def script(code: str, *arguments: object, **env: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **env},
    )  # fmt: skip


def test_name_is_job_date_time_and_code(tmp_path):
    with RunFolder.create(tmp_path, job="train") as folder:
        relative = folder.path.relative_to(tmp_path)
    assert relative.parts[0] == "train"
    assert datetime.strptime(relative.parts[1], "%Y-%m-%d")
    assert datetime.strptime(relative.parts[2][:6], "%H%M%S")
    assert len(relative.parts[2]) == 11


def test_four_processes_in_one_second_get_four_folders(tmp_path):
    code = """
import sys
from aptlab.runs import RunFolder
for _ in range(25):
    with RunFolder.create(sys.argv[1]) as folder:
        print(folder)
"""
    started = [script(code, tmp_path) for _ in range(4)]
    names = [name for process in started for name in process.communicate(timeout=60)[0].split("\n") if name]
    assert len(names) == 100
    assert len(set(names)) == 100


def test_a_clock_that_stands_still_or_jumps_back_makes_no_collision(tmp_path, monkeypatch):
    class Clock(datetime):
        moments = iter([10, 10, 10, 3, 10])

        @classmethod
        def now(cls, tz=None):
            return datetime(2025, 10, 26, 2, 30, next(cls.moments))

    codes = iter(["aaaa", "aaaa", "bbbb", "aaaa"])
    monkeypatch.setattr(folder_module, "datetime", Clock)
    monkeypatch.setattr(folder_module.secrets, "token_hex", lambda n: next(codes))
    names = [RunFolder.create(tmp_path).name for _ in range(3)]
    assert names == ["023010-aaaa", "023010-bbbb", "023003-aaaa"]


def test_run_dir_is_used_exactly_and_may_exist(tmp_path):
    place = tmp_path / "läuft 1"
    place.mkdir()
    with RunFolder.create(tmp_path, run_dir=place) as folder:
        assert folder.path == place


def test_spaces_unicode_and_links_in_the_path_work(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "mein Ordner ü").symlink_to(tmp_path / "elsewhere")
    with RunFolder.create(tmp_path / "mein Ordner ü", job="é x") as folder:
        folder.write_text("sample.txt", "日本")
    assert len(list((tmp_path / "elsewhere").rglob("sample.txt"))) == 1


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(AptlabError, match=r"out is a file, not a folder; choose another run_dir or paths\.root"):
        RunFolder.create(tmp_path / "out")
    with pytest.raises(AptlabError, match="out is a file, not a folder"):
        RunFolder.create(run_dir=tmp_path / "out")


def test_a_place_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    def refuse(self, *unused, **unused_too):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(AptlabError, match=r"cannot make the run folder .*: Permission denied; choose another"):
        RunFolder.create(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into read-only folders")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(AptlabError, match="Permission denied"):
        RunFolder.create(tmp_path / "out")


def test_a_second_process_is_refused_with_the_owners_pid(tmp_path):
    code = "import sys; from aptlab.runs import RunFolder; RunFolder.create(run_dir=sys.argv[1])"
    with RunFolder.create(run_dir=tmp_path):
        refused = script(code, tmp_path).communicate(timeout=30)[1]
    assert f"is being written by process {os.getpid()}; wait for it, stop it" in refused
    free = script(code, tmp_path)
    assert free.communicate(timeout=30)[1] == ""


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    code = """
import sys
from aptlab.runs import RunFolder
folder = RunFolder.create(run_dir=sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""
    owner = script(code, tmp_path)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    with pytest.raises(AptlabError, match=f"is being written by process {owner.pid}"):
        RunFolder.create(run_dir=tmp_path)
    owner.kill()
    owner.communicate(timeout=30)
    RunFolder.create(run_dir=tmp_path).close()


def test_other_ranks_get_rank_zeros_folder_and_write_nothing(tmp_path, monkeypatch):
    with RunFolder.create(tmp_path) as first:
        monkeypatch.setenv("LOCAL_RANK", "1")
        second = RunFolder.create(tmp_path)
        assert second.path == first.path
        second.write_text("sample.txt", "x")
        second.write_start(config={}, overrides=[], choices={})
        assert not (first.path / "sample.txt").exists()
        assert not (first.path / "config.yaml").exists()


def test_a_rank_that_cannot_know_the_folder_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(AptlabError, match="rank 1 cannot know the run folder of rank 0; set run_dir="):
        RunFolder.create(tmp_path)


def test_a_later_run_of_the_same_process_does_not_inherit(tmp_path):
    first = RunFolder.create(tmp_path)
    assert RunFolder.create(tmp_path).path != first.path


@pytest.mark.parametrize(
    ("common", "number"),
    [
        ({"TORCHELASTIC_RUN_ID": "none", "MASTER_PORT": "29500"}, "RANK"),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_JOB_START_TIME": "1700000000"}, "SLURM_PROCID"),
        ({"TORCHELASTIC_RUN_ID": "many", "GROUP_WORLD_SIZE": "2"}, "RANK"),
    ],
)
def test_ranks_of_one_launcher_agree_without_talking(tmp_path, monkeypatch, common, number):
    paths = []
    for rank in ("0", "1"):
        for name, value in {**common, number: rank}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(ranks, "_asked", {})
        monkeypatch.delenv("APTLAB_RUN_DIR", raising=False)
        paths.append(RunFolder.create(tmp_path).path)
    assert paths[0] == paths[1]


def test_two_runs_inside_one_launched_process_differ(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "0")
    assert RunFolder.create(tmp_path).path != RunFolder.create(tmp_path).path


def test_an_interactive_slurm_shell_is_no_distributed_run(monkeypatch):
    for name, value in {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    assert ranks.make_shared_name("train") is None
    monkeypatch.setenv("SLURM_JOB_NAME", "my-job")
    assert ranks.make_shared_name("train") is not None


def test_what_is_written_holds_no_secret(tmp_path, monkeypatch):
    secrets = [f"planted-secret-{number}" for number in range(4)]
    monkeypatch.setenv("WANDB_API_KEY", secrets[0])
    monkeypatch.setattr(sys, "argv", ["aptlab", "train", f"logger.api_key={secrets[1]}", f"a={secrets[0]}"])
    with RunFolder.create(run_dir=tmp_path) as folder:
        folder.write_start(
            config={"logger": {"api_key": secrets[1]}, "db": {"password": secrets[2]}, "note": secrets[0]},
            overrides=[f"logger.api_key={secrets[1]}", f"+x.token={secrets[3]}"],
            choices={"rope": "yarn"},
            seed=3,
        )
        folder.write_result({"overrides": [f"db.password={secrets[2]}"], "seed": 3})
    data = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert [secret for secret in secrets if secret.encode() in data] == []
    assert read_yaml(tmp_path / "choices.yaml") == {"rope": "yarn"}
    assert read_yaml(tmp_path / "overrides.yaml") == ["logger.api_key=***", "+x.token=***"]


def test_environment_names_versions_and_machine_but_not_the_host():
    record = collect_environment(seed=4)
    assert record["seed"] == 4
    assert record["packages"]["torch"]
    assert record["machine"]["cores"] >= 1
    assert record["machine"]["memory_bytes"] > 10**8
    assert record["started"].endswith("+00:00")
    assert "hostname" not in record
    assert collect_environment(hostname=True)["hostname"]


def test_environment_outside_a_repository_or_without_git(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert collect_environment()["git"] is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert collect_environment()["git"] is None


def test_environment_knows_commit_and_changes(tmp_path, monkeypatch):
    who = {f"GIT_{role}_{part}": "x@y.z" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        (tmp_path / "a").write_text("1")
        subprocess.run(["git", *command], cwd=tmp_path, env={**os.environ, **who}, check=True)
    monkeypatch.chdir(tmp_path)
    record = collect_environment()["git"]
    assert len(record["commit"]) == 40
    assert record["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert collect_environment()["git"]["dirty"] is True


def test_runs_import_neither_torch_nor_numpy():
    code = """
import sys, aptlab.runs, aptlab.loggers
print(sorted({"torch", "numpy", "lightning", "wandb"} & set(sys.modules)))
"""
    assert script(code).communicate(timeout=30)[0] == "[]\n"


def test_result_marks_the_run_as_finished_and_reads_back(tmp_path):
    result = Result(job="train", seed=1, steps=20, metrics={"val/loss": 2.5}, lengths=[{"multiple": 1}])
    with RunFolder.create(run_dir=tmp_path) as folder:
        assert not folder.finished
        folder.write_result(result)
        assert folder.finished
        assert Result.read(tmp_path) == result
        folder.reopen()
        assert folder.finished
        folder.replace_end()
        assert not folder.finished
    with pytest.raises(AptlabError, match=r"is not a finished run: it has no result\.json"):
        Result.read(tmp_path)


def test_numbers_that_are_not_finite_stay_readable_json(tmp_path):
    with RunFolder.create(run_dir=tmp_path) as folder:
        folder.write_result(Result(job="train", seed=1, metrics={"val/loss": float("nan")}))
    assert json.loads((tmp_path / "result.json").read_text())["metrics"] == {"val/loss": None}


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", "old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AptlabError, match=r"cannot write .*a\.txt: No space left on device; free some space"):
        write_text(tmp_path / "a.txt", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_yaml_keeps_the_kind_of_every_value(tmp_path):
    from omegaconf import OmegaConf

    values = {"a": "1e-3", "b": 1e-05, "c": "null", "d": None, "e": ["1_000", "yes"], "f": "ü: x", "g": True}
    (tmp_path / "x.yaml").write_text(format_yaml(values))
    assert read_yaml(tmp_path / "x.yaml") == values
    assert OmegaConf.to_container(OmegaConf.load(tmp_path / "x.yaml")) == values


def test_a_folder_of_results_is_made_or_named_with_the_way_out(tmp_path):
    assert folder_module.make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(AptlabError, match=r"cannot make the folder .*file: File exists; choose another with out=…"):
        folder_module.make_folder(tmp_path / "file")
    with pytest.raises(AptlabError, match=r"cannot make the folder .*: Not a directory; take another name"):
        folder_module.make_folder(tmp_path / "file" / "below", way_out="take another name")
