"""A model's name -> a local folder."""

import json
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

from minboost.errors import InputError, ModelError

DEMO_FOLDER = Path(__file__).parent / "demo" / "model"

# Only what minboost reads is fetched: no pickles, no code. In these patterns '*' crosses '/', so
# "*/*" is what keeps original/, onnx/ and the like out; consolidated* is the second copy of the
# weights that Mistral ships beside model-*.safetensors.
ALLOW_PATTERNS = ["*.json", "*.jinja", "*.safetensors"]
IGNORE_PATTERNS = ["*/*", "consolidated*"]

_FOREIGN = {".bin": "pickle", ".pt": "pickle", ".pth": "pickle", ".ckpt": "pickle", ".gguf": "GGUF"}
_LOOKS_LIKE_PATH = re.compile(r"[./~]|[A-Za-z]:|.*(\\|/.*/|/$)")
_REVISION = re.compile(r"(?!/)(?!.*\.\.)[^\s\\:?*\[~^\x00-\x1f\x7f]+")  # git's rule for a ref
_LIKE_A_TOKEN = re.compile(r"(?i:bearer)\s+[^\s'\"]+|\bhf_[\w.-]{8,}")

_log = logging.getLogger(__name__)


def resolve(name: str | os.PathLike[str], *, revision: str | None = None) -> Path:
    """Return the folder that holds the model called `name`, fetching it from the hub if need be.

    An existing folder is returned as it is; "demo" is the model shipped with minboost ("./demo"
    a folder of that name); anything else is a hub id, taken at `revision` (a branch, a tag or a
    commit; default: main). When the hub cannot be asked and a complete snapshot is cached, that
    one is used and a warning is logged, unless HF_HUB_OFFLINE asked for just that.

    Raises InputError for an empty name or a revision that cannot be, and ModelError for every
    model that cannot be had. No message holds a token.
    """
    text = os.fspath(name)
    if not text.strip():
        raise InputError("the model name is empty: give a folder, a hub id (org/name) or demo")
    if name == "demo":
        folder: Path | None = DEMO_FOLDER
        if not DEMO_FOLDER.is_dir():
            raise ModelError(f"the demo model is missing from this install: no {DEMO_FOLDER}")
    else:
        folder = _local_folder(text, is_path=isinstance(name, os.PathLike))
    if revision is None:
        return folder or _from_hub(text, None)
    if folder is not None:
        raise InputError(f"revision applies to hub ids only, and {text} is a folder")
    if not _REVISION.fullmatch(revision):
        raise InputError(f"revision {revision!r} is not the name of a branch, a tag or a commit")
    return _from_hub(text, revision)


def _local_folder(text: str, *, is_path: bool) -> Path | None:
    """The folder called `text`, or None where `text` can only be a hub id."""
    path = Path(os.path.expanduser(text))
    if os.path.isdir(path):
        return path
    if "://" in text:
        raise ModelError(f"model {text} is an address: give the hub id in it, such as org/name")
    if os.path.exists(path) or path.suffix.lower() in {*_FOREIGN, ".safetensors"}:
        raise ModelError(
            f"model {text} names a file: a folder is expected, with config.json, tokenizer.json "
            "and *.safetensors in it"
        )
    if is_path or _LOOKS_LIKE_PATH.match(text):
        raise ModelError(f"model folder {text} does not exist, or may not be read")
    return None


def _from_hub(name: str, revision: str | None) -> Path:
    """The snapshot of a hub id in the hub's own cache."""
    try:
        # Imported here because folders and the demo must work without it.
        from huggingface_hub import HfApi, constants, errors, snapshot_download
    except ImportError as error:
        raise ModelError(
            f"model {name} is no folder, and the hub needs: pip install huggingface_hub"
        ) from error
    label = f"model {name}" + ("" if revision is None else f" at revision {revision}")
    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else _token_alias()

    # `except Exception`, twice: depending on its version huggingface_hub raises what requests,
    # httpx, httpx2 or hf_xet raise, or a KeyError for an answer that no hub gave, and these share
    # no base. Each means that the model cannot be had, and the cause stays chained.
    # snapshot_download would fall back on its cache without a word. Asking first makes that
    # visible, and refuses a repository that minboost cannot read before gigabytes are fetched.
    unasked: Exception | None = None
    try:
        info = HfApi().model_info(
            name, revision=revision, token=token, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
    except errors.HFValidationError as error:
        raise ModelError(f"{label} is neither a folder nor a hub id: {error}") from error
    except errors.RevisionNotFoundError as error:  # the hub has spoken: no cache overrules that
        raise ModelError(f"{label} {_why(error, name)}") from _printable(error)
    except Exception as error:
        unasked = error
    else:
        if info.siblings is not None:
            _check_files(label, [file.rfilename for file in info.siblings])
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            token=token,
            allow_patterns=ALLOW_PATTERNS,
            ignore_patterns=IGNORE_PATTERNS,
            local_files_only=unasked is not None,
        )
    except Exception as error:
        cache = f" (No complete copy is in the cache {constants.HF_HUB_CACHE}.)" if unasked else ""
        why = _why(unasked or error, name)
        raise ModelError(f"{label} {why}{cache}") from _printable(unasked or error)
    if unasked is not None and not isinstance(unasked, errors.OfflineModeIsEnabled):
        _log.warning("%s %s Using the cached %s.", label, _why(unasked, name), folder)
    _check_snapshot(f"the cached snapshot of {label}", Path(folder))
    return Path(folder)


def _check_files(what: str, files: Iterable[str]) -> None:
    """Refuse a list of files that holds no checkpoint that minboost reads."""
    top = {file for file in files if "/" not in file}
    if not any(f.endswith(".safetensors") and not f.startswith("consolidated") for f in top):
        foreign = {file: kind for file in sorted(top) if (kind := _FOREIGN.get(Path(file).suffix))}
        kinds = " and ".join(sorted(set(foreign.values())))
        found = f"only {kinds} weights ({', '.join([*foreign][:3])})" if foreign else "no weights"
        raise ModelError(f"{what} holds {found}: minboost reads safetensors")
    if "config.json" not in top:
        raise ModelError(f"{what} holds no config.json: minboost reads Hugging Face checkpoints")


def _check_snapshot(what: str, folder: Path) -> None:
    """Refuse what a broken download left: older hub versions hand it out when offline."""
    files = {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()
    _check_files(what, files)
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_bytes())
        shards = {str(shard) for shard in index["weight_map"].values()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return  # no index, or a malformed one, which the loader refuses
    if lacking := sorted(shards - files):
        raise ModelError(f"{what} lacks {', '.join(lacking[:3])}: load it once while online")


def _why(error: BaseException, name: str) -> str:
    """What went wrong and what to do about it, as the rest of a sentence that names the model."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # "not in the cache" stands for what kept the hub from being asked
    # The first line says what happened; those after it give advice for callers of the hub client.
    text = str(getattr(error, "server_message", None) or error).strip().partition("\n")[0]
    detail = _scrub(f"{type(error).__name__}: {text}")[:300]
    page = f"https://huggingface.co/{name}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "cannot be fetched: HF_HUB_OFFLINE is set. Unset it to load once, or give a folder."
    if isinstance(error, errors.GatedRepoError):
        return f"is gated. Accept its licence at {page}, then set HF_TOKEN or run `hf auth login`."
    if isinstance(error, errors.RepositoryNotFoundError):
        return "is no folder, nor on the hub unless private. Check the name, or set HF_TOKEN."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"is not on the hub: no such revision. {page} lists its branches and tags."
    if (status := getattr(getattr(error, "response", None), "status_code", None)) is not None:
        advice = "Set HF_TOKEN to a valid token." if status in (401, 403) else "Try again later."
        return f"could not be fetched: the hub answered {status} ({detail}). {advice}"
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
        cache = constants.HF_HUB_CACHE
        return f"could not be stored in {cache} ({detail}). Make room, or point HF_HOME elsewhere."
    return f"could not be fetched ({detail}). Check the connection and HF_ENDPOINT; then run again."


def _token_alias() -> str | None:
    """HUGGINGFACE_TOKEN, unless a variable that the hub reads itself is set."""
    if any(os.environ.get(own, "").strip() for own in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")):
        return None
    return os.environ.get("HUGGINGFACE_TOKEN", "").strip() or None


def _scrub(text: str) -> str:
    """`text` without the tokens of the environment and without what looks like one."""
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN"):
        value = os.environ.get(variable, "").strip()
        if len(value) >= 8:  # anything shorter is a placeholder, and could be part of a word
            text = text.replace(value, "[token]")
    return _LIKE_A_TOKEN.sub("[token]", text)


def _printable(error: BaseException) -> BaseException | None:
    """`error` to chain from, or None where its traceback would print a token."""
    link: BaseException | None = error
    while link is not None:
        if _scrub(str(link)) != str(link):
            return None
        link = link.__cause__ or link.__context__
    return error
