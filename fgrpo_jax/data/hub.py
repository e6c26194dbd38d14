"""Where a checkpoint comes from: a folder in HF format, a hub id, or the warm start that is shipped.

    find("runs/sft-hf")                                  a folder
    find("Qwen/Qwen2.5-VL-3B-Instruct")                  the hub's main branch, through the cache of huggingface_hub
    find("Qwen/Qwen2.5-VL-3B-Instruct@66285546d2b8")     a revision: branch, tag or commit; or revision="…"
    find("shipped")                                      the policy of the demo

Every command that takes a checkpoint asks here. Cache, offline mode and access follow the variables of huggingface_hub
(HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN). Only what this package reads is fetched: weights in safetensors, and
the files of config, tokenizer and processor.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from fgrpo_jax.data.limits import read_json
from fgrpo_jax.model.config import require_supported

SHIPPED = "shipped"
FILES = (
    *("config.json", "generation_config.json", "model.safetensors", "model-?????-of-?????.safetensors"),
    *("model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "chat_template.json", "chat_template.jinja"),
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json", "adapter_config.json"),
)
"""What is fetched of a repository, as patterns; a repository lacks some of them."""

_ID = re.compile(r"(?P<id>[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*?)(?:@(?P<revision>[\w./-]+))?")
_KINDS = f"give a folder in HF format, a hub id (OWNER/NAME or OWNER/NAME@REVISION), or '{SHIPPED}'"


@dataclasses.dataclass(frozen=True)
class Files:
    """The files of a checkpoint or a data set on this machine."""

    folder: Path
    name: str  # the folder or id they were asked for by, without a revision
    revision: str = ""  # the commit of a hub id, '' for a folder; with the name it gives the same bytes again


def find(hf: str | Path, *, revision: str = "") -> Files:
    """The checkpoint that `hf` names, fetched first if it is a hub id that the cache lacks.

    Args:
      hf: folder, hub id or 'shipped'. A folder of that name comes before an id.
      revision: branch, tag or commit of a hub id; '' is the one in `hf`, else main.

    Raises:
      FileNotFoundError: no such folder or repository, or the cache lacks it while the hub is out of reach.
      ValueError: a revision of something that is no hub id, or two revisions; or a checkpoint of another model, said
        here so that every command says it, before it asks for a file which that model may lack.
    """
    hf = str(hf)
    if hf == SHIPPED or Path(hf).is_dir():
        if revision:
            raise ValueError(f"'{hf}' is a folder, and revision '{revision}' belongs to a hub id; drop it")
        folder = Path(str(resources.files("fgrpo_jax") / "assets" / "warmstart")) if hf == SHIPPED else Path(hf)
        _require_usable(folder, hf)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"'{hf}' holds no config.json; {_KINDS}")
        return Files(folder, hf)
    name, asked = split(hf)
    folder = snapshot(name, one_revision(hf, asked, revision), FILES)
    _require_usable(folder, name)
    if missing := _missing(folder):
        raise FileNotFoundError(
            f"'{name}' in the cache ({folder}) lacks {missing}; fetch the rest where there is a network (unset "
            "HF_HUB_OFFLINE), or choose a repository with Qwen2.5-VL weights in safetensors format"
        )
    return Files(folder, name, folder.name)


def is_id(hf: str) -> bool:
    """Whether `hf` is a hub id rather than a folder that is there, or 'shipped'."""
    return hf != SHIPPED and not Path(hf).is_dir() and _ID.fullmatch(hf) is not None


def split(hf: str) -> tuple[str, str]:
    """'OWNER/NAME@REVISION' → (id, revision), '' where there is none.

    Raises:
      FileNotFoundError: it is no id; since it is no folder either, there is nothing to read.
    """
    if (match := _ID.fullmatch(hf)) is None:
        raise FileNotFoundError(f"'{hf}' holds no config.json; {_KINDS}")
    return match["id"], match["revision"] or ""


def snapshot(name: str, revision: str, files: Sequence[str], *, data: bool = False, remedy: str = _KINDS) -> Path:
    """The folder with the files of a hub id, fetched first where the cache lacks them.

    Args:
      revision: branch, tag or commit; '' is main.
      files: patterns of what is fetched; () is everything.
      data: whether it is a data set rather than a model.
      remedy: what else a user may give, for errors.

    Raises:
      FileNotFoundError: no such repository, or the cache lacks it while the hub is out of reach.
    """
    from huggingface_hub import constants, errors, snapshot_download  # takes a while, and only ids need it

    what, flag = ("data set", " --repo-type dataset") if data else ("model", "")
    shown = f"{'data set ' if data else ''}'{name}'" + (f" at revision '{revision}'" if revision else "")
    kind, patterns = "dataset" if data else None, list(files) or None
    try:
        return Path(
            snapshot_download(
                name,
                repo_type=kind,
                revision=revision or None,
                allow_patterns=patterns,
                local_files_only=constants.is_offline_mode(),  # 1.33 asks for the files of a cached commit
            )
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise FileNotFoundError(
            f"{shown} is no folder here, and the hub does not give it: no such {what} or revision, or no access "
            f"(private and gated ones need HF_TOKEN); {remedy}"
        ) from error
    except OSError as error:
        cause = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        cause = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else cause
        raise FileNotFoundError(
            f"{shown} is no folder here, the cache {constants.HF_HUB_CACHE} does not hold it whole, and the hub is out "
            f"of reach ({cause}); fetch it where there is a network (hf download{flag} {name}) and point HF_HUB_CACHE "
            f"at that cache, or {remedy}"
        ) from error


def one_revision(hf: str, asked: str, revision: str) -> str:
    """The revision of an id that may name one itself; ValueError where two are named."""
    if asked and revision not in ("", asked):
        raise ValueError(f"'{hf}' and revision '{revision}' name two revisions; give one")
    return revision or asked


def _require_usable(folder: Path, name: str) -> None:
    """Raises a ValueError where a folder holds a PEFT adapter, beside weights or alone, or another model."""
    if (file := folder / "adapter_config.json").is_file():
        raise ValueError(
            f"'{name}' holds a PEFT adapter of {read_json(file).get('base_model_name_or_path')!r} ({file.name}); only "
            "whole weights are read: merge it (peft's merge_and_unload), or take adapter_* out of a folder that has it"
        )
    if (folder / "config.json").is_file():
        require_supported(read_json(folder / "config.json"), name)


def _missing(folder: Path) -> str:
    """The first file a snapshot must have and has not, '' when it is whole: an interrupted fetch leaves some out."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            return name
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return "" if (folder / "model.safetensors").is_file() else "model.safetensors"
    shards = sorted(set(read_json(index).get("weight_map", {}).values()))
    return next((shard for shard in shards if not (folder / shard).is_file()), "")
