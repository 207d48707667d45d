"""Files that commands write: whole or not at all, never over an input, links and modes kept."""

from __future__ import annotations

import os
import stat

import pytest

from minboost import InputError
from minboost.cli import main
from minboost.output import check_apart, check_writable, whole, write_text

pytestmark = pytest.mark.usefixtures("clean_settings")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "out.txt"
    write_text(path, "old")

    def fail():
        with whole(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    write_text(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]
    assert path.read_text() == "new"


def test_a_link_stays_a_link_and_a_file_keeps_its_mode(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_text(pipe, "text")
        assert os.read(reader, 100) == b"text"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_an_output_that_is_an_input_is_refused(tmp_path):
    path, link = tmp_path / "a", tmp_path / "b"
    path.write_text("x")
    link.symlink_to(path)
    with pytest.raises(InputError, match="--tasks and --out are the same file"):
        check_apart({"--out": link}, {"--tasks": path})
    check_apart({"--out": path, "--scores": None}, {"--tasks": "demo", "the config file": None})


@pytest.mark.parametrize(
    "args",
    [
        ["tune", "--tasks", "t.jsonl", "--out", "t.jsonl"],
        ["tune", "--config", "c.yaml", "--out", "c.yaml"],
        ["profile", "--config", "c.yaml", "--out", "c.yaml"],
        ["directions", "--positive", "t.jsonl", "--negative", "n.txt", "--out", "t.jsonl"],
    ],
    ids=" ".join,
)
def test_no_command_writes_over_what_it_reads(args, tmp_path, capfd):
    texts = {
        "t.jsonl": '{"instruction": "a", "query": "b", "answer": "c"}\n',
        "c.yaml": "method: pasta\n",
        "n.txt": "b\n",
    }
    if args[0] == "directions":
        texts["t.jsonl"] = '{"instruction": "a", "query": "b"}\n'
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    assert main([*args, "--device", "cpu"]) == 2
    assert "are the same file" in capfd.readouterr().err
    assert all((tmp_path / name).read_text() == text for name, text in texts.items())


def test_what_could_not_be_written_is_refused_before_the_work(tmp_path):
    with pytest.raises(InputError, match="is a folder; name a file"):
        check_writable("--out", tmp_path)
    with pytest.raises(InputError, match="is not there"):
        check_writable("--out", tmp_path / "no" / "a")
