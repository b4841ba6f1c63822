"""The `geomotiongpt` command: one verb, one function."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

EXIT_BAD_INPUT = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; bad input ends with one line on standard error and exit code 2."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "httpx2", "huggingface_hub", "datasets", "matplotlib", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        return arguments.run(arguments)
    except (ValueError, OSError) as error:
        message = " ".join(str(error).split())  # the Hub client writes several lines
        print(f"geomotiongpt {arguments.verb}: error: {message}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print(f"geomotiongpt {arguments.verb}: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="geomotiongpt", description="Motion-language models whose motion tokens share one geometry with the text."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add(name: str, run, help: str, example: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(
            name,
            help=help,
            description=help,
            epilog=f"example: geomotiongpt {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.set_defaults(run=run)
        return verb

    verb = add("quickstart", _quickstart, "make data, train both stages, caption unseen motions", "--output demo")
    verb.add_argument("--output", type=Path, default=Path("quickstart"), help="folder to write (default: quickstart)")
    verb.add_argument("--num-motions", type=int, default=None, help="motions to make (default: the recipe's)")
    verb.add_argument("--seed", type=int, default=0, help="of the data and the training (default: 0)")

    verb = add(
        "build-data",
        _build_data,
        "joints, texts and split lists -> the HumanML3D layout",
        "raw/ data/mine --num-proc 2",
    )
    verb.add_argument("source", type=Path, help="folder with joints/, texts/ and split lists")
    verb.add_argument("output", type=Path, help="folder to write or to go on with")
    verb.add_argument("--representation", default="humanml3d", choices=["humanml3d", "kitml"])
    verb.add_argument("--no-mirror", action="store_true", help="do not add mirrored clips")
    verb.add_argument("--no-retarget", action="store_true", help="keep the bone lengths of the source")
    verb.add_argument("--num-proc", type=int, default=None, help="processes (default: this one)")

    for name, run, what, folder in (
        ("train-tokenizer", _train_tokenizer, "train a motion tokenizer from a recipe", "motion_tokenizer.yaml"),
        ("train", _train, "train a motion-language model from a recipe", "language_model.yaml"),
    ):
        verb = add(name, run, what, f"hub_configs/geomotiongpt-tiny/{folder} training.max_steps=100")
        verb.add_argument("recipe", type=Path, help="YAML recipe, see hub_configs/")
        verb.add_argument("overrides", nargs="*", metavar="section.key=value", help="values to change in the recipe")

    verb = add("caption", _caption, "describe motion files", "quickstart/model walk.npy jump.npy --json")
    verb.add_argument("model", help="folder of a model, or its name on the Hub")
    verb.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".npy features or joints")
    verb.add_argument("--json", action="store_true", help="one JSON object a line: file and caption")
    verb.add_argument("--batch-size", type=int, default=16, help="motions at a time (default: 16)")
    verb.add_argument("--num-beams", type=int, default=1, help="beams (default: 1, greedy)")
    verb.add_argument("--trust-remote-code", action="store_true", help="run the code in the model's repository")

    verb = add(
        "convert",
        _convert,
        "a published motion tokenizer checkpoint -> a folder that from_pretrained opens",
        "dvq.pth tokenizer/ --data data/HumanML3D",
    )
    verb.add_argument("checkpoint", type=Path, help=".pth, .pt, .bin, .ckpt or .safetensors with the published keys")
    verb.add_argument("output", type=Path, help="folder to write")
    verb.add_argument("--data", type=Path, help="folder with Mean.npy and Std.npy, to save with the tokenizer")

    verb = add(
        "push", _push, "upload a saved model, with its card, to the Hub", "quickstart/model USER/NAME --private"
    )
    verb.add_argument("folder", type=Path, help="folder of a saved model")
    verb.add_argument("repo_id", help="USER/NAME")
    verb.add_argument("--private", action="store_true", help="make the repository private")
    return parser


def _quickstart(arguments: argparse.Namespace) -> int:
    from .quickstart import quickstart

    quickstart(arguments.output, num_motions=arguments.num_motions, seed=arguments.seed)
    return 0


def _build_data(arguments: argparse.Namespace) -> int:
    from .data.builder import build_motion_dataset

    report = build_motion_dataset(
        arguments.source,
        arguments.output,
        arguments.representation,
        mirror=not arguments.no_mirror,
        retarget=not arguments.no_retarget,
        num_proc=arguments.num_proc,
    )
    print(report)
    return 0


def _train_tokenizer(arguments: argparse.Namespace) -> int:
    from .training.motion_tokenizer import train_motion_tokenizer

    print(train_motion_tokenizer(arguments.recipe, arguments.overrides))
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from .training.language_model import train_language_model

    print(train_language_model(arguments.recipe, arguments.overrides))
    return 0


def _caption(arguments: argparse.Namespace) -> int:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor, pipeline

    from . import models as models
    from .checkpoints import check_model_folder

    check_model_folder(arguments.model)
    for path in arguments.files:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such motion file.")
    # Loaded here: `pipeline` answers a model that cannot be loaded with a page of tracebacks.
    options = {"trust_remote_code": arguments.trust_remote_code or None}
    try:
        kind = AutoConfig.from_pretrained(arguments.model, **options).model_type
    except OSError as error:
        raise OSError(f"{arguments.model}: no such folder, and not to be had from the Hub: {error}") from error
    if kind != "geomotiongpt":
        raise ValueError(f"{arguments.model} holds a {kind!r} model; captions take a 'geomotiongpt'.")
    model = AutoModelForCausalLM.from_pretrained(arguments.model, **options)
    processor = AutoProcessor.from_pretrained(arguments.model, **options)
    describe = pipeline("motion-to-text", model=model, processor=processor)
    results = describe(
        [str(path) for path in arguments.files], batch_size=arguments.batch_size, num_beams=arguments.num_beams
    )
    for path, result in zip(arguments.files, results, strict=True):
        if arguments.json:
            print(json.dumps({"file": str(path), "caption": result["generated_text"]}, ensure_ascii=False))
        elif len(arguments.files) == 1:
            print(result["generated_text"])
        else:
            print(f"{path}: {result['generated_text']}")
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    from .checkpoints import convert_motion_tokenizer

    print(convert_motion_tokenizer(arguments.checkpoint, arguments.output, data=arguments.data))
    return 0


def _push(arguments: argparse.Namespace) -> int:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    from .checkpoints import check_model_folder

    check_model_folder(arguments.folder)
    if not arguments.folder.is_dir():
        raise FileNotFoundError(f"{arguments.folder}: no such folder; push what save_pretrained or a training wrote.")
    api = HfApi()
    ignored = ["checkpoint-*", "adapter/*", "*.bin", "*.pt"]
    try:
        repo_id = api.create_repo(arguments.repo_id, private=arguments.private, exist_ok=True).repo_id
        print(api.upload_folder(repo_id=repo_id, folder_path=arguments.folder, ignore_patterns=ignored))
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise
        raise PermissionError(
            f"the Hub does not let you write to {arguments.repo_id}: log in with `hf auth login`, or set HF_TOKEN, "
            f"with a token that may write there. {error}"
        ) from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
