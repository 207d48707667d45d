"""Names of models: folders, the demo, and the real hub client against a stand-in on loopback.

The client reads its settings from the environment when it is imported, so every setting has a
process of its own, which answers one request a line. There the package is a bare name for its
folder: importing it would import torch, and that costs more than all of these proofs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import pytest

from minboost import hub
from minboost.errors import InputError, ModelError

from .hub_server import MEMBER, VISITOR, HubServer, Repo

WORKER = """
import json, sys, time, traceback, types

package = sys.modules["minboost"] = types.ModuleType("minboost")
package.__path__ = [sys.argv[1]]
from minboost.hub import resolve

print(json.dumps({"client_imported": "huggingface_hub" in sys.modules}), flush=True)
pause = time.sleep
time.sleep = lambda seconds: pause(min(seconds, 0.01))  # the client waits between its attempts
for line in sys.stdin:
    name, revision = json.loads(line)
    try:
        answer = {"folder": str(resolve(name, revision=revision))}
    except Exception as error:
        trace = "".join(traceback.format_exception(error))
        answer = {"error": type(error).__name__, "message": str(error), "trace": trace}
    print(json.dumps(answer), flush=True)
"""


class Worker:
    """A process in which `resolve` runs with an environment of its own."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.upper().startswith(("HF_", "HUGGING")) and "PROXY" not in key.upper()
        }
        self._stderr = (folder / "stderr.txt").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(Path(hub.__file__).parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            cwd=folder,
            env={
                **inherited,
                "HF_HOME": str(folder),
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                **environment,
            },
        )
        self.hello = self._answer()

    def _answer(self) -> dict[str, str]:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, name: str, revision: str | None = None) -> dict[str, str]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, revision]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def folder(self, name: str, revision: str | None = None) -> Path:
        answer = self.ask(name, revision)
        assert "folder" in answer, answer
        return Path(answer["folder"])

    def refusal(self, name: str, revision: str | None = None) -> str:
        """The message of the ModelError that a name ends in."""
        answer = self.ask(name, revision)
        assert answer.get("error") == "ModelError", answer
        return answer["message"]

    def stderr(self) -> str:
        return Path(self._stderr.name).read_text()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()
        self._stderr.close()


JUNK = {
    "README.md": b"# card",
    "pytorch_model.bin": b"pickle",
    "modeling_x.py": b"raise SystemExit",
    "model.gguf": b"GGUF",
    "consolidated.safetensors": b"again",
    "consolidated.safetensors.index.json": b"{}",
    "original/consolidated.pth": b"pickle",
    "original/params.json": b"{}",
    "onnx/model.onnx": b"graph",
    "onnx/model.safetensors": b"other",
}
SMALL = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"weights" * 99}
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = {"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}
SHARDED = {
    "config.json": b'{"model_type": "llama"}',
    "generation_config.json": b"{}",
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
    SHARDS[0]: b"first" * 1000,
    SHARDS[1]: b"second" * 1000,
}


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    with HubServer() as server:
        server.repos = {
            "org/sharded": Repo({"main": SHARDED | JUNK}),
            "org/pinned": Repo({"main": SMALL, "v1": SMALL | {"config.json": b'{"v": 1}'}}),
            "org/gated": Repo({"main": SMALL}, gated=True),
            "org/private": Repo({"main": SMALL}, private=True),
            "org/pickled": Repo({"main": {"config.json": b"{}", "pytorch_model.bin": b"x"}}),
            "org/ggufs": Repo({"main": {"m-q4.gguf": b"x", "m-q8.gguf": b"x"}}),
            "org/empty": Repo({"main": {"README.md": b"soon"}}),
            "org/noconfig": Repo({"main": {"model.safetensors": b"x"}}),
            "org/cut": Repo({"main": SHARDED}, faults={SHARDS[1]: "cut"}),
            "org/short": Repo({"main": SMALL}, faults={"model.safetensors": "short"}),
            "org/gone": Repo({"main": SMALL}, faults={"tokenizer.json": "gone"}),
            "solo": Repo({"main": SMALL}),
        }
        yield server


Start = Callable[..., Worker]


@pytest.fixture(scope="module")
def start(server: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start a worker; `home` shares the cache of an earlier one."""
    workers: list[Worker] = []

    def start(home: Path | None = None, **environment: str) -> Worker:
        folder = home or tmp_path_factory.mktemp("home")
        workers.append(Worker({"HF_ENDPOINT": server.url, **environment}, folder))
        return workers[-1]

    yield start
    for worker in workers:
        worker.__exit__(None, None, None)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of the anonymous user, which the offline tests find filled."""
    return tmp_path_factory.mktemp("anonymous")


@pytest.fixture(scope="module")
def anonymous(start: Start, home: Path) -> Worker:
    worker = start(home)
    worker.folder("org/sharded")
    worker.folder("org/pinned")
    return worker


@pytest.fixture(scope="module")
def member(start: Start) -> Worker:
    return start(HUGGINGFACE_TOKEN=f" {MEMBER}\n")


@pytest.fixture(scope="module")
def offline(start: Start, home: Path, anonymous: Worker) -> Worker:
    return start(home, HF_HUB_OFFLINE="1")


@pytest.fixture(scope="module")
def unconnected(start: Start, home: Path, anonymous: Worker) -> Worker:
    return start(home, HF_ENDPOINT="http://127.0.0.1:9")  # the discard port: nothing listens


# Folders and the demo


def test_an_existing_folder_is_returned_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert hub.resolve(str(tmp_path / "org")) == tmp_path / "org"
    assert hub.resolve("org/model") == Path("org/model")
    assert hub.resolve(Path("org/model")) == Path("org/model")
    assert hub.resolve("~/org") == tmp_path / "org"


@pytest.mark.parametrize(
    "name",
    ["./m", "../m", "/m", "~/m", "~nobody-here/m", "C:/m", "c:m", r"a\m", "a/b/m", "m/", Path("m")],
    ids=str,
)
def test_what_looks_like_a_path_is_never_asked_of_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"model folder .*m.* does not exist"):
        hub.resolve(name)


@pytest.mark.parametrize("name", ["m.gguf", "x/model.safetensors", "pytorch_model.bin", "m.PTH"])
@pytest.mark.parametrize("exists", [True, False], ids=["there", "not there"])
def test_a_file_is_refused_for_a_folder(name, exists, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if exists:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    with pytest.raises(ModelError, match="names a file: a folder is expected"):
        hub.resolve(name)


def test_demo_is_the_shipped_model_and_dot_slash_demo_the_folder(tmp_path, monkeypatch):
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Path(hub.__file__).parent / "demo" / "model" == hub.DEMO_FOLDER
    monkeypatch.setattr(hub, "DEMO_FOLDER", shipped)
    assert hub.resolve("demo") == shipped
    assert hub.resolve("./demo") == hub.resolve(Path("demo")) == Path("demo")


def test_a_missing_demo_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "DEMO_FOLDER", tmp_path / "none")
    with pytest.raises(ModelError, match="demo model is missing from this install"):
        hub.resolve("demo")


def test_a_revision_applies_to_hub_ids_only(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "DEMO_FOLDER", tmp_path)
    for name in ("demo", str(tmp_path)):
        with pytest.raises(InputError, match="revision applies to hub ids only"):
            hub.resolve(name, revision="main")


@pytest.mark.parametrize("revision", ["", " main", "/etc/x", "../../x", "a b", "a\nb", "C:x", "a*"])
def test_a_revision_that_git_would_not_allow_is_refused(revision):
    with pytest.raises(InputError, match="not the name of a branch, a tag or a commit"):
        hub.resolve("org/model", revision=revision)


@pytest.mark.parametrize("name", ["a--b", "org/na me", "x" * 97, "a..b", "m\0"])
def test_what_cannot_be_a_hub_id_is_refused(name):
    with pytest.raises(ModelError, match="neither a folder nor a hub id"):
        hub.resolve(name)


def test_an_empty_name_and_an_address_are_refused():
    with pytest.raises(InputError, match="name is empty"):
        hub.resolve(" ")
    with pytest.raises(ModelError, match="is an address: give the hub id"):
        hub.resolve("https://huggingface.co/org/model")


def test_without_the_hub_client_a_hub_id_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match="pip install huggingface_hub"):
        hub.resolve("org/model")


# Fetching


def test_the_hub_client_is_imported_only_for_a_hub_id(anonymous):
    assert anonymous.hello == {"client_imported": False}


def test_a_sharded_model_arrives_whole_and_nothing_else_is_asked_for(anonymous, server):
    folder = anonymous.folder("org/sharded")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == SHARDED
    assert server.fetched("org/sharded") == set(SHARDED)


def test_an_id_without_an_organisation_works(anonymous):
    assert (anonymous.folder("solo") / "model.safetensors").is_file()


def test_a_revision_pins_branch_tag_or_commit(anonymous, server):
    tagged = anonymous.folder("org/pinned", "v1")
    assert (tagged / "config.json").read_bytes() == b'{"v": 1}'
    assert (anonymous.folder("org/pinned") / "config.json").read_bytes() == b"{}"
    commit = server.repos["org/pinned"].commit("v1")
    assert anonymous.folder("org/pinned", commit) == tagged


def test_an_unknown_revision_is_named(anonymous):
    message = anonymous.refusal("org/pinned", "v9")
    assert message.startswith("model org/pinned at revision v9 is not on the hub: no such revision")


def test_a_gated_model_names_the_licence_page(anonymous, start):
    visitor = start(HF_TOKEN=VISITOR)
    for worker in (anonymous, visitor):
        answer = worker.ask("org/gated")
        assert answer["error"] == "ModelError"
        assert "Accept its licence at https://huggingface.co/org/gated" in answer["message"]
        assert "set HF_TOKEN" in answer["message"]
        assert "GatedRepoError" in answer["trace"]  # the cause stays chained


@pytest.mark.parametrize("name", ["org/nothing", "org/private", "typo"])
def test_a_missing_or_private_model_says_what_to_check(anonymous, name):
    message = anonymous.refusal(name)
    assert f"model {name} is no folder, nor on the hub unless private." in message


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("org/pickled", "only pickle weights (pytorch_model.bin): minboost reads safetensors"),
        ("org/ggufs", "only GGUF weights (m-q4.gguf, m-q8.gguf): minboost reads safetensors"),
        ("org/empty", "no weights: minboost reads safetensors"),
        ("org/noconfig", "no config.json"),
    ],
)
def test_a_repository_without_a_checkpoint_is_refused_before_any_file(
    anonymous, server, name, what
):
    assert f"model {name} holds {what}" in anonymous.refusal(name)
    assert server.fetched(name) == set()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("org/cut", "peer closed connection|Connection broken|has size"),
        ("org/short", "should be of size 693 but has size 346"),
        ("org/gone", "the hub answered 404 .*Entry not found"),
    ],
)
def test_a_broken_download_is_refused_and_can_be_repeated(anonymous, server, name, what):
    message = anonymous.refusal(name)
    assert re.match(f"model {name} could not be fetched.*({what})", message)
    assert "force_download" not in message
    server.repos[name].faults.clear()
    folder = anonymous.folder(name)
    expected = server.repos[name].revisions["main"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected


def test_a_cache_that_cannot_be_written_is_named(start, tmp_path):
    (tmp_path / "file").touch()
    worker = start(HF_HUB_CACHE=str(tmp_path / "file"))
    message = worker.refusal("org/pinned")
    assert f"could not be stored in {tmp_path / 'file'}" in message
    assert "point HF_HOME elsewhere" in message


# Without the hub


def test_offline_the_cached_snapshot_is_used_without_a_word_or_a_request(
    offline, anonymous, server
):
    cached = anonymous.folder("org/sharded")
    server.seen.clear()
    assert offline.folder("org/sharded") == offline.folder("org/sharded", "main") == cached
    assert server.seen == []
    assert "org/sharded" not in offline.stderr()


def test_offline_what_is_not_cached_is_refused_by_name(offline):
    for name, revision in (("org/never", None), ("org/pinned", "v8")):
        message = offline.refusal(name, revision)
        assert f"model {name}" in message
        assert "HF_HUB_OFFLINE" in message


def test_a_snapshot_with_a_missing_shard_is_refused(server, tmp_path):
    name = "org/partial"
    server.repos[name] = Repo({"main": SHARDED})
    with Worker({"HF_ENDPOINT": server.url}, tmp_path) as worker:
        (worker.folder(name) / SHARDS[0]).unlink()
    # Newer versions of the client keep a listing here and notice by themselves.
    shutil.rmtree(tmp_path / "hub" / "models--org--partial" / "trees", ignore_errors=True)
    with Worker({"HF_HUB_OFFLINE": "1"}, tmp_path) as worker:
        message = worker.refusal(name)
    assert f"the cached snapshot of model {name} lacks {SHARDS[0]}: load it once" in message


def test_an_unreachable_hub_is_named_and_the_cached_snapshot_used(unconnected, anonymous):
    folder = unconnected.folder("org/sharded")
    assert folder == anonymous.folder("org/sharded")
    assert "model org/sharded could not be fetched (" in unconnected.stderr()
    assert f"Using the cached {folder}." in unconnected.stderr()


def test_an_unreachable_hub_and_no_cache_is_refused(unconnected):
    message = unconnected.refusal("org/never")
    assert "model org/never could not be fetched (" in message
    assert "Check the connection and HF_ENDPOINT" in message
    assert "No complete copy is in the cache" in message


@pytest.mark.parametrize("status", [500, 200])
def test_a_hub_that_answers_nonsense_is_refused(anonymous, server, status):
    server.status = status
    try:
        message = anonymous.refusal("org/never")
        folder = anonymous.folder("org/sharded")
    finally:
        server.status = None
    assert "model org/never could not be fetched" in message
    assert status != 500 or "the hub answered 500" in message
    assert folder.is_dir()


# Tokens


def test_huggingface_token_is_an_alias_that_arrives_as_bearer(member, server):
    server.seen.clear()
    for name in ("org/gated", "org/private"):
        assert (member.folder(name) / "model.safetensors").is_file()
        assert server.tokens(name) == {MEMBER}


@pytest.mark.parametrize(
    ("setting", "value", "sent"),
    [("HF_TOKEN", VISITOR, VISITOR), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1", None)],
)
def test_the_hubs_own_token_rules_come_before_the_alias(start, server, setting, value, sent):
    worker = start(HUGGINGFACE_TOKEN=MEMBER, **{setting: value})
    server.seen.clear()
    worker.refusal("org/private")
    assert server.tokens("org/private") == {sent}


def test_a_stored_login_is_used_and_an_empty_alias_is_no_token(start, server, tmp_path):
    (tmp_path / "token").write_text(MEMBER)
    worker = start(tmp_path, HUGGINGFACE_TOKEN="")
    server.seen.clear()
    assert worker.folder("org/private").is_dir()
    assert server.tokens("org/private") == {MEMBER}


@pytest.mark.parametrize("variable", ["HF_TOKEN", "HUGGINGFACE_TOKEN"])
def test_no_output_holds_a_token(start, server, variable):
    # A vertical tab cannot stand in a header, and the client quotes the header in its error.
    for bad, cause in (("hf_wrongWRONGwrong0123", "401"), ("secret-of-mine\v-and-more", "")):
        worker = start(**{variable: bad})
        answers = [worker.ask("org/pinned"), worker.ask("org/gated"), worker.ask("org/no", "v1")]
        text = json.dumps(answers) + worker.stderr()
        for part in (bad, bad[:12], bad[-8:]):
            assert json.dumps(part)[1:-1] not in text
        assert all(answer.get("error") == "ModelError" for answer in answers)
        assert cause in answers[0]["message"]
