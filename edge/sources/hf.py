"""Models on a Hugging Face hub: `hf:owner/name@revision`, through huggingface_hub and its cache.

HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and a stored login mean what they mean to that library. The
revision is always a full commit; files are taken by a list of names, so that nothing executable comes along.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from converters.errors import AccessError, MachineError, SourceError
from edge.lock import LockedFile, LockedModel
from edge.progress import Progress
from edge.sources import cache, download
from edge.sources.spec import Hf

WANTED = re.compile(
    r"config\.json|generation_config\.json|[\w.-]+\.safetensors|[\w.-]+\.safetensors\.index\.json|"
    r"tokenizer[\w.-]*\.(?:json|model)|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt|"
    r"chat_template\.(?:json|jinja)|cl100k_base\.tiktoken|(?:LICEN[CS]E|NOTICE)[\w.-]*"
)
"""File names, at the top of the repository, that a checkpoint is made of."""
SENTENCES = (
    "modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "config_sentence_transformers.json",
)  # fmt: skip
"""How a sentence-embedding model makes one vector of many; read by `edge.encoder.sentences`."""


def is_wanted(name: str) -> bool:
    """Whether a file of this name, relative to the repository, is part of a checkpoint."""
    return bool(WANTED.fullmatch(name)) or name in SENTENCES


@dataclass(frozen=True)
class Listing:
    """What the hub says about a revision. `sha256` is None for small files, whose hub hash is git's."""

    spec: Hf
    licence: str | None
    files: dict[str, tuple[int, str | None]]


@dataclass(frozen=True)
class Remote:
    """`url` gives a file's bytes to whoever sends `authorization` along."""

    url: str
    authorization: str | None
    etag: str | None


def listing(spec: Hf) -> Listing:
    """Pin the revision and list the checkpoint's files, without downloading any."""
    from huggingface_hub import HfApi

    with _told(spec):
        info = HfApi().model_info(spec.repo, revision=spec.revision, files_metadata=True)
    pinned = Hf(spec.repo, info.sha)
    if not pinned.pinned:
        raise SourceError(
            f"the hub names no commit for {spec}", hint="give the 40 digits of a commit after '@'"
        )
    files = {
        s.rfilename: (s.size or 0, s.lfs.sha256 if s.lfs else None)
        for s in info.siblings or []
        if is_wanted(s.rfilename)
    }
    if not any(name.endswith(".safetensors") for name in files):
        raise SourceError(
            f"{pinned} has no safetensors file", hint="pickled weights are never loaded; convert them"
        )
    return Listing(pinned, _licence(info), files)


def lock_files(found: Listing, progress: Progress) -> tuple[LockedFile, ...]:
    """Hashes of large files as the hub pins them; small files are downloaded and hashed."""
    files = []
    for name, (size, sha256) in sorted(found.files.items()):
        if sha256 is None:
            path = _download(found.spec, name, size, None, progress)
            sha256, size = cache.sha256_of(path), path.stat().st_size
        files.append(LockedFile(name, size, sha256))
    progress.done()
    return tuple(files)


def fetch(spec: Hf, model: LockedModel, progress: Progress) -> Path:
    """The snapshot directory in the hub's own cache, with every locked file verified.

    A checkpoint file in it that the lock does not know is refused as well.
    """
    if not spec.pinned:
        raise SourceError(f"{spec} pins no commit", hint=f"run `edge lock {model.name} {spec}`")
    for file in model.files:
        path = _download(spec, file.path, file.size, file.sha256, progress)
        snapshot = path.parents[file.path.count("/")]
        stamp = cache.place("stamps", f"{model.name}-{file.sha256[:16]}.json")
        progress.stage(f"verify {file.path}", file.size)
        actual = cache.is_intact(path, file, stamp, progress)
        progress.done()
        if actual:
            # The hub's library would take it for good forever.
            path.resolve().unlink()
            hint = f"the copy is removed: `edge pull {model.name}` fetches it again"
            raise cache.mismatch(f"{spec}: {file.path}", file.sha256, actual, hint=hint)
    known = {file.path for file in model.files}
    for path in sorted(snapshot.iterdir()):
        if is_wanted(path.name) and path.name not in known:
            raise SourceError(
                f"{path} is not in the lock", hint=f"remove it, or run `edge lock {model.name}`"
            )
    return snapshot


def _download(spec: Hf, name: str, size: int, sha256: str | None, progress: Progress) -> Path:
    """The file in the hub's cache, downloaded if it is not there yet.

    huggingface_hub (2.x) throws a broken download away, so the bytes are fetched here, resumably and verified,
    to the place in its cache where it would put them (blobs/<etag>); it then only makes the snapshot's link.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.file_download import repo_folder_name

    with _told(spec, name):
        cached = _cached(spec, name)
        if cached is not None:
            return cached
    found = remote(spec, name)
    folder = repo_folder_name(repo_id=spec.repo, repo_type="model")
    if found.etag and re.fullmatch(r"[0-9A-Za-z_-]+", found.etag):
        blob = Path(constants.HF_HUB_CACHE, folder, "blobs", found.etag)
        with cache.exclusive(cache.place("downloads", found.etag)):
            if not blob.exists():
                blob.parent.mkdir(parents=True, exist_ok=True)
                download.fetch(
                    found.url,
                    blob,
                    size=size,
                    sha256=sha256,
                    label=name,
                    progress=progress,
                    authorization=found.authorization,
                )
    with _told(spec, name):
        return Path(hf_hub_download(spec.repo, name, revision=spec.revision))


def remote(spec: Hf, name: str) -> Remote:
    """Where a file's bytes are. Raises SourceError, and AccessError for a gated or private repository."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # no __all__ there

    with _told(spec, name):
        url = hf_hub_url(spec.repo, name, revision=spec.revision)
        found = get_hf_file_metadata(url)
    # A file store that the hub sends us on to has its own credentials in the address.
    ours = urlsplit(found.location)[:2] == urlsplit(url)[:2]
    return Remote(found.location, build_hf_headers().get("authorization") if ours else None, found.etag)


def is_cached(spec: Hf, model: LockedModel) -> bool:
    """Whether `fetch` would download nothing."""
    with _told(spec):
        return all(_cached(spec, file.path) for file in model.files)


def _cached(spec: Hf, name: str) -> Path | None:
    """The file of a pinned revision in the hub's cache, None when it is not there."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(spec.repo, name, revision=spec.revision)
    return Path(cached) if isinstance(cached, str) and Path(cached).exists() else None


@contextmanager
def _told(spec: Hf, name: str = "") -> Iterator[None]:
    """huggingface_hub's errors as ours."""
    from huggingface_hub import errors

    what = f"{spec}: {name}" if name else str(spec)
    try:
        yield
    except errors.GatedRepoError as error:
        hint = f"accept the licence on the page of {spec.repo}, then `hf auth login` or set HF_TOKEN"
        raise AccessError(f"{spec} is gated", hint=hint) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        hint = "check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
        raise SourceError(f"cannot reach the hub for {what}", hint=hint) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            # The hub answers 401 for a private and for a missing repository alike.
            hint = "check the name; for a private or gated model `hf auth login` or set HF_TOKEN"
            raise AccessError(f"the hub refuses {what} ({status})", hint=hint) from error
        if status == 404:
            raise SourceError(f"the hub has no {what}", hint="check the name and the revision") from error
        raise SourceError(f"the hub answers {status} for {what}", hint="try again later") from error
    except errors.HFValidationError as error:
        raise SourceError(f"{spec} is no repository: {error}", hint="write hf:owner/name") from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # of the HTTP library it is built on
        hint = "check the network and HF_ENDPOINT; run again, and a download continues where it stopped"
        raise SourceError(f"cannot reach the hub for {what}: {error}", hint=hint) from error
    except OSError as error:
        if error.errno is None:
            raise SourceError(f"cannot fetch {what}: {error}", hint="run the same command again") from error
        hint = "check free space and rights in HF_HOME"
        raise MachineError(f"cannot store {what}: {error.strerror}", hint=hint) from error


def _licence(info: Any) -> str | None:
    value = info.card_data.get("license") if info.card_data else None
    return value if isinstance(value, str) else None
