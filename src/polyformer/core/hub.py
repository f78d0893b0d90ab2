"""Files of a model: from a local folder, or from the Hugging Face hub through its cache.

A local folder never touches the network, and neither does a file that the cache has. All of HF_HOME, HF_ENDPOINT,
HF_TOKEN and HF_HUB_OFFLINE mean what they mean to `huggingface_hub`, which is imported only when a name is no local
path. Neither this module nor what it imports needs torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .errors import CheckpointError
from .files import FOREIGN_WEIGHTS, INDEX_SUFFIX, WEIGHT_FILES, listing, read_index, refuse_escape


def cached_file(
    name_or_path: str | os.PathLike[str],
    filename: str,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    subfolder: str = "",
    required: bool = True,
) -> Path | None:
    """The local path of a model's file, downloaded if need be.

    name_or_path: a folder; or a file, for its own name and for files beside it; else a repository of the hub, as
        "organisation/name", or "name" alone as the first models have it ("bert-base-uncased"). A folder of that name
        wins over the hub.
    revision: branch, tag or commit. Files of a branch come from the commit that the cache already knows for it, so
        that one model's files always fit together; `force_download=True` moves to the newest.
    token: as `huggingface_hub` has it: a token, True to require the stored one, False to send none.
    required: False gives None where the file does not exist: not in the folder; not in the repository, as the hub says
        or as the cache remembers; or, with downloads off, not among the repository's files in the cache.

    Errors: CheckpointError, in one sentence with the remedy, when the file is required and missing, when the name is
    neither a folder nor a repository, and when the hub cannot be reached or refuses, even if the file is optional.
    """
    name = os.fspath(name_or_path)
    wanted = _inside(subfolder, filename)
    if os.path.exists(name):
        return _local_file(Path(name), wanted, required)
    return _Repository(name, revision, cache_dir, token, local_files_only, force_download).file(wanted, required)


def find_weights(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    subfolder: str = "",
) -> Path:
    """The path of a model's weights, for `open_checkpoint`: the first there is of model.safetensors, its index,
    pytorch_model.bin and its index; with an index all its shards are fetched too. A file given by its path is itself.

    What the cache has comes before what the hub might have, so that a cached model needs no network.
    Keywords and errors as for `cached_file`; weights of other frameworks are named when there is nothing else.
    """
    name = os.fspath(name_or_path)
    candidates = [_inside(subfolder, candidate) for candidate in WEIGHT_FILES]
    if os.path.exists(name):
        return _local_weights(Path(name), candidates, subfolder)
    repository = _Repository(name, revision, cache_dir, token, local_files_only, force_download)
    cached = (repository.cached(candidate) for candidate in candidates)
    path = next((path for path in cached if path is not None), None) if not force_download else None
    if path is None:
        fetched = (repository.file(candidate, required=False) for candidate in candidates)
        path = next((path for path in fetched if path is not None), None)
    if path is None:
        raise CheckpointError(_no_weights(f"The repository {name!r}", repository.names(), subfolder))
    if path.name.endswith(INDEX_SUFFIX):
        for shard in read_index(path).shards:
            repository.file(_inside(subfolder, shard), required=True)
    return path


def _inside(subfolder: str, filename: str) -> str:
    """The file's name relative to the model, with forward slashes; refused if it leaves the model."""
    refuse_escape(filename)
    if subfolder:
        refuse_escape(subfolder, "subfolder")
        return f"{subfolder.strip('/')}/{filename}"
    return filename


def _no_weights(where: str, names: list[str], subfolder: str) -> str:
    """The sentence for a model without weights that we read, given the names of its files (as far as known)."""
    looked_for = ", ".join(WEIGHT_FILES)
    place = f"{where}, subfolder {subfolder!r}," if subfolder else where
    prefix = f"{subfolder.strip('/')}/" if subfolder else ""
    here = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    for foreign, framework in FOREIGN_WEIGHTS.items():
        if foreign in here:
            return (
                f"{place} has only {framework} weights ({foreign}), which are not read here (looked for {looked_for}); "
                "convert them to safetensors first, with the library that wrote them."
            )
    has = f"; it has {listing(here)}" if here else ""
    return f"{place} has no weights (looked for {looked_for}){has}; check the name or save the model there first."


# --------------------------------------------------------------------------------------------------- a local folder


def _local_file(path: Path, wanted: str, required: bool) -> Path | None:
    if path.is_file():
        if path.name == wanted:
            return path
        path = path.parent
    found = path / wanted
    if found.is_file():
        return found
    if required:
        hides = " (a folder comes before a hub repository of its name)" if _could_be_repository(path) else ""
        raise CheckpointError(f"The folder {path}{hides} has no file {wanted!r}; {_contents(path, wanted)}.")
    return None


def _could_be_repository(path: Path) -> bool:
    return not path.is_absolute() and 1 <= len(path.parts) <= 2 and ".." not in path.parts


def _contents(folder: Path, wanted: str) -> str:
    """What is there instead, for an error message."""
    inner = (folder / wanted).parent
    if not inner.is_dir():
        return f"it has no folder {inner.name!r} either; check the subfolder"
    names = sorted(entry.name for entry in inner.iterdir())
    if not names:
        return "it is empty; check the path"
    return f"it has {listing(names)}; check the path, or add the file"


def _local_weights(path: Path, candidates: list[str], subfolder: str) -> Path:
    if path.is_file():
        return path
    found = next((path / candidate for candidate in candidates if (path / candidate).is_file()), None)
    if found is None:
        names = sorted(entry.relative_to(path).as_posix() for entry in (path / subfolder).glob("*"))
        raise CheckpointError(_no_weights(f"The folder {path}", names, subfolder))
    if found.name.endswith(INDEX_SUFFIX):
        missing = [shard for shard in read_index(found).shards if not (found.parent / shard).is_file()]
        if missing:
            raise CheckpointError(f"{found} names shards that are not beside it: {listing(missing)}; copy them there.")
    return found


# ---------------------------------------------------------------------------------------------- a repository of the hub


@dataclass(frozen=True)
class _Repository:
    """A repository of the hub at one revision, and how it may be reached."""

    name: str
    revision: str | None
    cache_dir: str | os.PathLike[str] | None
    token: str | bool | None
    local_files_only: bool
    force_download: bool

    def __post_init__(self) -> None:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined,unused-ignore]

        try:
            validate_repo_id(self.name)
        except HFValidationError as error:
            raise CheckpointError(
                f"{self.name!r} is neither a folder or file here nor a repository of the hub, which is called 'name' "
                "or 'organisation/name'; check the path."
            ) from error
        if self.revision is not None:
            refuse_escape(self.revision, "revision")

    def file(self, wanted: str, required: bool) -> Path | None:
        """The file from the cache if it is there, else from the hub; None for an optional one that does not exist."""
        if not self.force_download:
            path = self.cached(wanted)
            if path is not None:
                return path
            if self._known_absent(wanted):
                self._accept_absent(wanted, required)
                return None
        if self._offline():
            self._accept_offline(wanted, required)
            return None
        return self._download(wanted, required)

    def cached(self, wanted: str) -> Path | None:
        """The file in the cache, without any network."""
        found = self._look_up(wanted)
        return Path(found) if isinstance(found, str) else None

    def names(self) -> list[str]:
        """The names of the repository's files: as the hub lists them, else those in the cache. Never an error."""
        folder = self._snapshot()
        cached = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) if folder else []
        if self._offline():
            return cached
        try:
            from huggingface_hub import HfApi

            return HfApi(token=self.token).list_repo_files(self.name, revision=self._commit() or self.revision)
        except Exception:  # only the list for an error message: whatever the hub answers, the message goes out
            return cached

    # ---- the cache

    def _look_up(self, wanted: str) -> object:
        from huggingface_hub import try_to_load_from_cache

        return try_to_load_from_cache(self.name, wanted, cache_dir=self._cache(), revision=self.revision)

    def _known_absent(self, wanted: str) -> bool:
        from huggingface_hub import _CACHED_NO_EXIST

        return self._look_up(wanted) is _CACHED_NO_EXIST

    def _cache(self) -> Path:
        from huggingface_hub import constants

        return Path(self.cache_dir or constants.HF_HUB_CACHE)

    def _commit(self) -> str | None:
        """The commit that the cache knows for a branch or tag, if it has files of it."""
        if self.force_download:
            return None
        root = self._cache() / ("models--" + self.name.replace("/", "--"))
        try:
            commit = (root / "refs" / (self.revision or "main")).read_text().strip()
        except OSError:
            return None
        return commit if commit and (root / "snapshots" / commit).is_dir() else None

    def _snapshot(self) -> Path | None:
        """The folder of the cache with this revision's files, or None if it has none of them."""
        root = self._cache() / ("models--" + self.name.replace("/", "--")) / "snapshots"
        folder = root / (self._commit() or self.revision or "main")
        return folder if folder.is_dir() and any(folder.iterdir()) else None

    # ---- the hub

    def _offline(self) -> bool:
        from huggingface_hub import constants

        return self.local_files_only or bool(constants.HF_HUB_OFFLINE)

    def _download(self, wanted: str, required: bool) -> Path | None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RevisionNotFoundError

        def fetch(revision: str | None) -> Path:
            return Path(
                hf_hub_download(
                    self.name,
                    wanted,
                    revision=revision,
                    cache_dir=self._cache(),
                    token=self.token,
                    force_download=self.force_download,
                )
            )

        if (trouble := _unreachable()) is not None:  # the library would try five times, for half a minute
            raise CheckpointError(self._explain(wanted, trouble))
        try:
            try:
                return fetch(self._commit() or self.revision)
            except RevisionNotFoundError:
                if self._commit() is None:
                    raise
                return fetch(self.revision)  # the commit in the cache was rewritten on the hub
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):  # a kind of it, but it means that the hub was not reached
                raise CheckpointError(self._explain(wanted, error)) from error
            self._accept_absent(wanted, required, error)
            return None
        except Exception as error:  # of its HTTP client, too, which it has changed twice
            raise CheckpointError(self._explain(wanted, error)) from error

    # ---- what to say

    def _accept_absent(self, wanted: str, required: bool, cause: BaseException | None = None) -> None:
        """Raise if a file that the repository does not have is required."""
        if required:
            names = self.names()
            has = f"; it has {listing(names)}" if names else ""
            raise CheckpointError(f"The repository {self.name!r} has no file {wanted!r}{self._at()}{has}.") from cause

    def _accept_offline(self, wanted: str, required: bool) -> None:
        """With downloads off: raise unless the file is optional and the cache has others of the repository."""
        known = self._snapshot() is not None
        if known and not required and not self.force_download:
            return
        why = "local_files_only=True" if self.local_files_only else "HF_HUB_OFFLINE is set"
        if self.force_download:
            raise CheckpointError(f"force_download=True needs the network, but {why}; choose one of the two.")
        what = f"{wanted!r} of {self.name!r}{self._at()}" if known else f"{self.name!r}{self._at()}"
        raise CheckpointError(
            f"{what} is not in the cache {self._cache()} and downloads are off ({why}), nor is there such a folder; "
            "allow downloads once, or give the path of a local copy."
        )

    def _at(self) -> str:
        return f" at revision {self.revision!r}" if self.revision else ""

    def _explain(self, wanted: str, error: BaseException) -> str:
        from huggingface_hub import constants, errors

        what = f"{wanted!r} of {self.name!r}"
        url = f"{constants.ENDPOINT}/{self.name}"
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, errors.GatedRepoError):
            return f"{self.name!r} is gated: accept its terms at {url}, then log in (`hf auth login`) or set HF_TOKEN."
        if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
            return (
                f"{self.name!r} is no folder here and no repository that {constants.ENDPOINT} shows you; check the "
                "spelling, or, if it is private, log in (`hf auth login`) or set HF_TOKEN."
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return f"{self.name!r} has no branch, tag or commit {self.revision or 'main'!r}; see {url}/tree/main."
        if isinstance(error, errors.LocalTokenNotFoundError):
            return "token=True, but no token is stored; log in (`hf auth login`), set HF_TOKEN or drop token=True."
        if status is not None:
            return f"{constants.ENDPOINT} answered {status} when asked for {what}{_hint(status)}."
        reason = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
        told = " ".join(str(reason).split())[:200].rstrip(".") or type(reason).__name__
        return (
            f"{what} is not in the cache and could not be downloaded from {constants.ENDPOINT} ({told}); check the "
            "connection and HF_ENDPOINT, or give the path of a local copy."
        )


def _hint(status: int) -> str:
    if status == 403:
        return ": access is denied; check what your token may read"
    if status == 429:
        return ": too many requests; wait a little, or log in"
    return ": the hub is in trouble; try again later" if status >= 500 else ""


def _unreachable() -> OSError | None:
    """Why the hub's host has no address here, or None if it has one or a proxy is to find it."""
    import socket
    import urllib.parse
    import urllib.request

    from huggingface_hub import constants

    host = urllib.parse.urlsplit(constants.ENDPOINT).hostname
    if not host or urllib.request.getproxies():
        return None
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        return error
    return None
