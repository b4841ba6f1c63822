"""A built data set to the Hub: what is checked and asked before a long build, and the upload after it."""

import sys
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError

from .console import is_network_error

# Of each source: the licence's name on the Hub, if it is known, and what to say of it.
_YOURS = "the licence of your source applies: whoever made the motions and captions decides who may have them"
_AMASS = "the motions: the licences of AMASS and its parts, amass.is.tue.mpg.de"
LICENCES: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "joints": (None, (_YOURS,)),
    "files": (None, (_YOURS,)),
    "join": (None, ("the licences of all its parts apply",)),
    "humanml3d": (
        "other",
        ("the captions of HumanML3D: MIT", f"{_AMASS}, and of HumanAct12"),
    ),
    "babel": ("other", ("the labels: the licence of BABEL, babel.is.tue.mpg.de", _AMASS)),
    "kitml": ("other", ("the licence of KIT-ML applies: motion-annotation.humanoids.kit.edu/dataset",)),
    "bandai": ("cc-by-nc-4.0", ("CC BY-NC 4.0: not for commercial use, with credit to Bandai Namco Research",)),
}


def check_push(repo_id: str, source: str, *, public: bool = False, confirmed: bool = False) -> None:
    """Finds out whether a data set may be pushed, before it is built, shows what its licences say, and asks.

    Args:
        repo_id: data set on the Hub, `user/name`.
        source: of the data, a key of `LICENCES`.
        public: whether everybody may see it.
        confirmed: do not ask.

    Raises:
        ValueError: for a name of another form, a data set that is there and is not as private, or if nobody can be
            asked, or says no.
        PermissionError: without a token that may write there.
    """
    owner, separator, name = repo_id.partition("/")
    if not (owner and separator and name) or "/" in name:
        raise ValueError(f"--push {repo_id}: wanted USER/NAME.")
    _check_account(owner)
    try:
        is_private = bool(HfApi().repo_info(repo_id, repo_type="dataset").private)
    except RepositoryNotFoundError:
        is_private = not public
        state = "a new data set"
    else:
        state = "a data set that is there, whose motions are replaced"
    if is_private == public:
        asked = "--public" if public else "private (without --public)"
        raise ValueError(
            f"{repo_id} is there and is {'private' if is_private else 'public'}, but {asked} is asked for: change its "
            "settings on the Hub, or choose another name."
        )
    print(f"--push: {repo_id}, {state}, {'seen by EVERYBODY' if public else 'private'}")
    for line in LICENCES[source][1]:
        print(f"  licence: {line}")
    if confirmed:
        return
    if not sys.stdin.isatty():
        raise ValueError("--push asks before it uploads, and nobody can answer here: add --yes.")
    if input("Do these licences allow it? Build and push [y/N] ").strip().lower() not in ("y", "yes"):
        raise ValueError("not pushed, and nothing is built; leave out --push to build only.")


def push_folder(folder: Path, repo_id: str, source: str, representation: str, *, public: bool = False) -> str:
    """Uploads a built folder as parquet, with its statistics and a card.

    Args:
        folder: in the HumanML3D layout.
        repo_id: data set on the Hub.
        source: of the data, a key of `LICENCES`.
        representation: of the motions.
        public: whether a new data set is public.

    Returns:
        its address.

    Raises:
        OSError: if the Hub refuses or does not answer; the folder stays as it is.
    """
    from .data.dataset_card import motion_dataset_card
    from .data.loader import load_motion_dataset, load_motion_statistics, push_motion_dataset

    motions = load_motion_dataset(folder, representation=representation)
    mean, std = load_motion_statistics(folder, representation)
    licence, notes = LICENCES[source]
    card = motion_dataset_card(repo_id, motions, representation, source=source, licence=licence, notes=notes)
    try:
        push_motion_dataset(motions, repo_id, mean=mean, std=std, private=not public, card=card)
    except Exception as error:
        if not isinstance(error, HfHubHTTPError) and not is_network_error(error):
            raise
        told = f"The Hub says: {error}" if isinstance(error, HfHubHTTPError) else f"The Hub does not answer: {error}"
        raise OSError(f"{folder} is built, but was not pushed; the same command goes on from there. {told}") from error
    return f"{HfApi().endpoint}/datasets/{repo_id}"


def _check_account(owner: str) -> None:
    way_out = "log in with `hf auth login`, or set HF_TOKEN, with a token that may write there"
    try:
        account = HfApi().whoami()
    except LocalTokenNotFoundError:
        raise PermissionError(f"--push: you are not logged in to the Hub: {way_out}.") from None
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise
        raise PermissionError(f"--push: the Hub does not know your token: {way_out}.") from None
    names = [account["name"], *(organisation["name"] for organisation in account.get("orgs", []))]
    if owner not in names:
        raise PermissionError(f"--push: {owner} is not you; you may write to {', '.join(names)}: {way_out}.")
    if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise PermissionError(f"--push: your token may only read: {way_out}.")
