"""What the neural back ends share: torch and upstream's code are imported only when they are asked
for, checkpoints come by path or URL and are checked before they are used.

Everything here raises `UsageError` with one sentence that says what to install or to put where.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import urllib.request
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from preprocess_torch.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "fp16", "bf16")


def cache_dir() -> Path:
    """Where downloaded checkpoints are kept: $RELAM_CACHE or ~/.cache/relam_jax."""
    return Path(os.environ.get("RELAM_CACHE") or Path.home() / ".cache" / "relam_jax")


def import_torch() -> Any:
    """The torch module."""
    try:
        return import_module("torch")
    except ImportError as error:
        raise UsageError(
            "torch is not installed: run `make setup EXTRAS=torch` "
            "(with a GPU: pip install -r requirements-gpu.txt); docs/perception.md has the steps"
        ) from error


def pick_device(name: str) -> Any:
    """The torch device that `--device` names; `auto` takes a GPU if torch sees one."""
    torch = import_torch()
    if name not in DEVICES:
        raise UsageError(f"--device {name}: one of {', '.join(DEVICES)}, please")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise UsageError("--device cuda: torch sees no GPU here; use --device cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def pick_dtype(name: str, device: Any) -> Any:
    """The torch dtype that `--precision` names; `auto` is fp16 on a GPU and fp32 on a CPU."""
    torch = import_torch()
    if name not in PRECISIONS:
        raise UsageError(f"--precision {name}: one of {', '.join(PRECISIONS)}, please")
    if name == "auto":
        name = "fp16" if device.type == "cuda" else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16 needs a GPU: use bf16 or fp32 on a CPU")
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[name]


def import_upstream(
    module: str, repo: Path | None, option: str, variable: str, install: str
) -> Any:
    """`module` from the checkout that `repo` (else the environment's `variable`) names, else from
    what is installed.

    The checkout stays first on `sys.path`: upstream's own imports are relative to it.
    """
    folder = repo or (Path(os.environ[variable]) if os.environ.get(variable) else None)
    if folder is not None:
        path = folder.expanduser().resolve()
        if not (path / module.split(".")[0]).is_dir():
            raise UsageError(
                f"{path} is not the checkout that {option} or {variable} should name: "
                f"it has no folder {module.split('.')[0]}; {install}"
            )
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == module.split(".")[0]:
            raise UsageError(f"{install}, then name it by {option} or {variable}") from error
        raise UsageError(
            f"{module} needs the package {error.name}, which is not installed: "
            "docs/perception.md lists what to install"
        ) from error


def checkpoint_file(text: str, download: str) -> Path:
    """The checkpoint `text` names: a path or a URL, each with an optional `#sha256=…` at its end.

    A URL is downloaded once into `cache_dir()`; a file already there is taken without network.
    The sum, if given, is checked each time. `download` says how to get the file by hand.
    """
    text, _, expected = text.partition("#sha256=")
    if expected and not re.fullmatch(r"[0-9a-fA-F]{64}", expected):
        raise UsageError(f"#sha256={expected} is not a sha256 sum: 64 hexadecimal digits, please")
    if text.startswith(("https://", "http://")):
        file = cache_dir() / text.rsplit("/", 1)[-1]
        if not file.exists():
            _download(text, file)
    else:
        file = Path(text).expanduser()
        if not file.is_file():
            raise UsageError(f"there is no checkpoint {file}: {download}")
    if expected and sha256(file) != expected.lower():
        raise UsageError(
            f"{file} has the sha256 {sha256(file)}, not the {expected.lower()} that was asked for: "
            "remove it and download it again"
        )
    return file


def _download(url: str, file: Path) -> None:
    part = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    print(f"downloading {url} to {file}", file=sys.stderr)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=60) as source, open(part, "wb") as target:
            promised = source.headers.get("Content-Length")
            shutil.copyfileobj(source, target, 1 << 20)
        if promised and part.stat().st_size != int(promised):
            raise OSError(f"{part.stat().st_size} of {promised} bytes came")
        part.replace(file)
    except OSError as error:
        raise UsageError(
            f"{url} cannot be downloaded ({error}): put the file at {file}, or name another place "
            "by its path"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def hub_folder(text: str, size: str) -> Path:
    """The folder of a checkpoint named by a path, or by its name on the Hugging Face hub.

    What an earlier run has downloaded is taken without network.
    """
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder
    by_hand = (
        f"where there is network run `hf download {text} --local-dir FOLDER` ({size}), bring the "
        "folder here and name it by --segmenter_checkpoint FOLDER"
    )
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        raise UsageError(f"there is no folder {text}: give the checkpoint's folder or hub name")
    try:
        hub: Any = import_module("huggingface_hub")
    except ImportError as error:
        raise UsageError(f"huggingface_hub is not installed; {by_hand}") from error
    try:
        return Path(hub.snapshot_download(text, local_files_only=True))
    except Exception:  # not there yet
        pass
    try:
        return Path(hub.snapshot_download(text))
    except Exception as error:  # requests, httpx and the hub each raise their own
        raise UsageError(
            f"{text} cannot be downloaded from the hub ({type(error).__name__}): {by_hand}"
        ) from error


def load_state(file: Path) -> dict[str, Any]:
    """The state dict in a .pth, .bin or .safetensors file, bare or under `model`; no code in the
    file is run."""
    torch = import_torch()
    try:
        if file.suffix == ".safetensors":
            state = import_module("safetensors.torch").load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip, torch and safetensors each raise their own
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{file} is not a checkpoint that torch can read ({first})") from error
    return state.get("model", state)


def load_weights(model: Any, state: dict[str, Any], source: Path) -> None:
    """Strictly: a missing or unknown weight is an error, for a model that is partly random finds
    nothing and says nothing."""
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])[:300]
        raise UsageError(f"{source} holds the weights of another model ({reason})") from error


def sha256(file: Path) -> str:
    """Of a file's bytes."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_all(files: Iterable[Path]) -> str:
    """One sum for the weights of a model in several files."""
    sums = [f"{file.name} {sha256(file)}" for file in sorted(files)]
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()
