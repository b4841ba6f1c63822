"""The `geomotiongpt` command: one verb, one function."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__
from .build_data import add_build_data
from .captioning import add_caption
from .console import SHELLS, CommandParser, HelpFormatter, PrintCompletion, positive, run_verb
from .demo import add_demo
from .motion_input import MOTION_FILES, add_import_options
from .rendering import add_render


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; bad input ends with one line on standard error and exit code 2, see `run_verb`."""
    words = sys.argv[1:] if argv is None else argv
    return run_verb(
        lambda: _parser().parse_args(words, argparse.Namespace(command=shlex.join(["geomotiongpt", *words])))
    )


_EPILOG = """example: geomotiongpt quickstart
         geomotiongpt caption quickstart/model walk.npy
         geomotiongpt evaluate --help

Words are completed with <Tab> after one of these, best put where the shell starts:
  bash   eval "$(geomotiongpt --print-completion bash)"                          # ~/.bashrc
  zsh    eval "$(geomotiongpt --print-completion zsh)"                           # ~/.zshrc, after compinit
  fish   geomotiongpt --print-completion fish > ~/.config/fish/completions/geomotiongpt.fish"""


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="geomotiongpt",
        description="Motion-language models whose motion tokens share one geometry with the text.",
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"geomotiongpt {__version__}")
    parser.add_argument(
        "--print-completion", action=PrintCompletion, choices=SHELLS, help="print what makes a shell complete words"
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add(name: str, run, help: str, example: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(
            name,
            help=help,
            description=help,
            epilog=f"example: geomotiongpt {name} {example}",
            formatter_class=HelpFormatter,
        )
        verb.set_defaults(run=run, when_stopped=None)
        return verb

    verb = add("quickstart", _quickstart, "make data, train both stages, caption unseen motions", "--output demo")
    verb.add_argument("--output", type=Path, default=Path("quickstart"), help="folder to write")
    verb.add_argument("--num-motions", type=positive, default=None, help="motions to make (default: 6000)")
    verb.add_argument("--seed", type=int, default=0, help="of the data and of both trainings")

    add_build_data(add)

    for name, run, what, folder in (
        (
            "train-tokenizer",
            _train_tokenizer,
            "train a motion tokenizer, VAE or codec from a recipe",
            "motion_tokenizer.yaml",
        ),
        ("train", _train, "train a motion-language model from a recipe", "language_model.yaml"),
        ("train-evaluator", _train_evaluator, "train an evaluator network from a recipe", "evaluator.yaml"),
    ):
        verb = add(name, run, what, f"hub_configs/geomotiongpt-tiny/{folder} training.max_steps=100")
        verb.add_argument("recipe", type=Path, help="YAML recipe; hub_configs/... come with the package")
        verb.add_argument("overrides", nargs="*", metavar="section.key=value", help="values to change in the recipe")

    add_caption(add)
    _add_generate(add)
    _add_evaluate(add)
    add_render(add)
    add_demo(add)

    verb = add(
        "convert",
        _convert,
        "make a folder that from_pretrained opens of a published motion tokenizer, language model or evaluator",
        "dvq.pth tokenizer/ --data data/HumanML3D\n"
        "         geomotiongpt convert m2t.ckpt model/ --motion-tokenizer tokenizer/ --text-tokenizer gpt2\n"
        "         geomotiongpt convert motiongpt3.ckpt model/ --data data/HumanML3D --text-tokenizer gpt2\n"
        "         geomotiongpt convert finest.tar evaluators/t2m --data meta/ --word-vectors glove.6B.300d.txt",
    )
    verb.add_argument("checkpoint", type=Path, help=".pth, .pt, .bin, .ckpt or .safetensors with the published keys")
    verb.add_argument("output", type=Path, help="folder to write")
    verb.add_argument(
        "--data",
        type=Path,
        help="folder with Mean.npy and Std.npy, to save with the tokenizer; of an evaluator its own, which it needs",
    )
    verb.add_argument(
        "--motion-tokenizer", metavar="FOLDER", help="of a language model: the motion tokenizer, converted before"
    )
    verb.add_argument(
        "--text-tokenizer",
        metavar="NAME_OR_FOLDER",
        help="of a language model: its text tokenizer, to save a processor too",
    )
    verb.add_argument("--word-vectors", type=Path, help="of an evaluator: GloVe text file, or a .npy array")
    verb.add_argument("--words", type=Path, help="the words of the .npy array, or those to keep of GloVe, one a line")

    verb = add(
        "push",
        _push,
        "upload a saved model, with its card, to the Hub: publicly, unless --private",
        "quickstart/model USER/NAME --private",
    )
    verb.add_argument("folder", type=Path, help="folder of a saved model")
    verb.add_argument("repo_id", help="USER/NAME")
    verb.add_argument("--private", action="store_true", help="make a new repository private (default: public)")
    return parser


def _add_generate(add) -> None:
    verb = add(
        "generate",
        _generate,
        "make motions from captions, or from parts of a motion",
        'runs/tiny-generation/model "a person walks forward." --num-samples 3 --output generated\n'
        '         geomotiongpt generate MODEL "a person walks." "someone sits down." --sequence --seconds 4\n'
        "         geomotiongpt generate MODEL --task motion-in-between --motion walk.npy --keep 16 16",
    )
    verb.add_argument("model", help="folder of a model, or its name on the Hub")
    verb.add_argument("texts", nargs="*", metavar="TEXT", help="captions; each gives motions of its own")
    verb.add_argument("--output", type=Path, default=Path("generated"), help="folder to write")
    verb.add_argument("--sequence", action="store_true", help="one motion that shows the captions one after another")
    verb.add_argument("--num-samples", type=positive, default=1, help="motions for each")
    length = verb.add_mutually_exclusive_group()
    length.add_argument("--frames", type=positive, help="length to ask for; of a sequence, of each part")
    length.add_argument("--seconds", type=float, help="the same in seconds (default: the model decides)")
    tasks = ["text-to-motion", "motion-prediction", "motion-in-between", "unconditional"]
    verb.add_argument("--task", default="text-to-motion", choices=tasks, help="what to make")
    verb.add_argument("--motion", type=Path, metavar="FILE", help=f"to go on from or fill in: {MOTION_FILES}")
    verb.add_argument(
        "--keep",
        type=int,
        nargs=2,
        metavar=("START", "END"),
        help="frames of --motion given at its start and its end; in-betweens need it (default: all frames)",
    )
    verb.add_argument("--seed", type=int, default=0, help="of the sampling")
    _add_sampling(verb, "above 1 a beam search instead of sampling")
    verb.add_argument("--batch-size", type=positive, default=16, help="captions at a time")
    add_import_options(verb)
    picture = verb.add_mutually_exclusive_group()
    picture.add_argument("--format", default="gif", choices=["gif", "png"], help="animated, or a strip of poses")
    picture.add_argument("--no-animation", action="store_true", help="features and joints only")


def _add_sampling(group, beams: str) -> None:
    group.add_argument("--num-beams", type=positive, default=1, help=beams)
    group.add_argument("--temperature", type=float, help="of sampling; 0 always takes the likeliest (default: 1)")
    group.add_argument("--top-p", type=float, help="sample from the likeliest of this share together (default: 1)")
    latent = "of a model whose motion is a latent, not tokens: "
    group.add_argument("--guidance-scale", type=float, help=f"{latent}1 is the model itself (default: the model's)")
    group.add_argument("--denoising-steps", type=positive, help=f"{latent}more are slower (default: the model's)")


def _add_evaluate(add) -> None:
    verb = add(
        "evaluate",
        _evaluate,
        "measure a model, anybody's captions or motions, or the metrics themselves",
        "quickstart/model --data quickstart/data --labels embedded --output evaluation\n"
        "         geomotiongpt evaluate MODEL --task text-to-motion --data DATA --evaluator EVALUATOR\n"
        "         geomotiongpt evaluate --predictions captions.jsonl --convention coco --output scores.json\n"
        "         geomotiongpt evaluate --motions generated/ --data data/HumanML3D --evaluator evaluators/t2m\n"
        "         geomotiongpt evaluate --probes --data data/HumanML3D --evaluator evaluators/t2m",
    )
    verb.set_defaults(when_stopped="the same command goes on with what it had made")
    what = verb.add_argument_group("what to measure, one of").add_mutually_exclusive_group(required=True)
    what.add_argument("model", nargs="?", help="folder of a model, or its name on the Hub")
    what.add_argument("--predictions", type=Path, metavar="FILE", help="captions with ids (JSONL, JSON, CSV, TSV)")
    what.add_argument("--motions", type=Path, metavar="DIR", help="motions made from captions, <motion id>.npy")
    what.add_argument("--probes", action="store_true", help="known damages of real motion: does each metric react?")
    what.add_argument("--retrieval", action="store_true", help="the evaluator itself: R-precision, TMR's protocols")
    tasks = ["motion-to-text", *_TASKS_OF_MOTIONS, "motion-duration"]
    verb.add_argument("--task", default=tasks[0], choices=tasks, help="what a model is to do")
    verb.add_argument(
        "--output", type=Path, help="JSON to write; of a model a folder (default: evaluation, or evaluation/TASK)"
    )
    group = verb.add_argument_group("population")
    group.add_argument("--data", metavar="FOLDER", help="folder of a data set, or its name on the Hub")
    group.add_argument("--split", default="test", help="split of the data")
    group.add_argument(
        "--representation", default="humanml3d", choices=["humanml3d", "kitml", "streaming272"], help="of the data"
    )
    group.add_argument("--min-frames", type=int, help="leave out shorter motions (usual: 40; KIT-ML 24)")
    group.add_argument("--max-frames", type=int, help="leave out longer motions (usual: 199)")
    group.add_argument("--no-mirrored", action="store_true", help="leave out mirrored motions")
    group = verb.add_argument_group("captions")
    group.add_argument("--convention", default="coco", choices=["coco", "nlgmetricverse"], help="of the metrics")
    group.add_argument("--reference-policy", default="first-three", choices=["first-three", "all"], help="which count")
    group.add_argument("--references", type=Path, metavar="FILE", help="of --predictions, where they stand elsewhere")
    group.add_argument("--track", default="raw", help="what the references are: raw captions, token (lemmas), ...")
    group.add_argument("--system", metavar="NAME", help="which one, of --predictions with several; `all` scores each")
    group.add_argument("--bert-model", metavar="MODEL", help="encoder of BERTScore: a folder or a name on the Hub")
    group.add_argument("--bert-layer", type=int, help="to read, of an encoder that BERTScore does not know")
    group.add_argument("--bert-rescale", action="store_true", help="rescale BERTScore by its baseline")
    group.add_argument(
        "--labels", metavar="FILE", help="words that name action, side and style: a JSON file, or `embedded`"
    )
    group = verb.add_argument_group("evaluator")
    group.add_argument(
        "--evaluator", metavar="FOLDER", help="folder of an evaluator network: see train-evaluator and convert"
    )
    group.add_argument("--replications", type=positive, default=20, help="for the 95%% interval")
    group.add_argument("--pool-size", type=positive, default=32, help="motions that a caption is to be found among")
    group.add_argument(
        "--last-pool", default="smaller", choices=["smaller", "drop"], help="what becomes of an incomplete pool"
    )
    group.add_argument("--seed", type=int, default=0, help="also of the motions that a model makes")
    group = verb.add_argument_group("motions that a model makes")
    group.add_argument(
        "--lengths",
        default="data",
        choices=["data", "stated", "free"],
        help="of text to motion: the data's, kept exactly; the data's, stated to a LLaMo that ends by itself; or as "
        "the model likes",
    )
    group.add_argument("--num-samples", type=positive, default=1, help="of each of 100 captions, for MultiModality")
    group.add_argument("--judge", metavar="MODEL", help="captioning model that says what they show; needs --labels")
    group.add_argument(
        "--keep",
        type=float,
        default=0.25,
        help="share of each motion given, 0.25 is a quarter; of in-betweens at each end",
    )
    group = verb.add_argument_group("decoding")
    _add_sampling(group, "above 1 a beam search; at 1 captions are greedy, motions sampled")
    group.add_argument("--max-new-tokens", type=int, help="of captions (default: the model's)")
    group.add_argument("--batch-size", type=positive, default=64, help="motions at a time")
    verb.add_argument("--update-card", action="store_true", help="put the result into the model's own card")


def _quickstart(arguments: argparse.Namespace) -> int:
    from .quickstart import quickstart

    quickstart(arguments.output, num_motions=arguments.num_motions, seed=arguments.seed)
    return 0


def _train_tokenizer(arguments: argparse.Namespace) -> int:
    from .training.motion_tokenizer import train_motion_tokenizer

    print(train_motion_tokenizer(arguments.recipe, arguments.overrides))
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from .training.language_model import train_language_model

    print(train_language_model(arguments.recipe, arguments.overrides))
    return 0


def _train_evaluator(arguments: argparse.Namespace) -> int:
    from .training.evaluator import train_evaluator

    print(train_evaluator(arguments.recipe, arguments.overrides))
    return 0


def _sampling(arguments: argparse.Namespace) -> dict:
    """Options of `generate`: plain sampling unless told otherwise, and nothing left to the library's defaults."""
    denoising = {"guidance_scale": arguments.guidance_scale, "num_denoising_steps": arguments.denoising_steps}
    return {**_token_sampling(arguments), **{name: value for name, value in denoising.items() if value is not None}}


def _token_sampling(arguments: argparse.Namespace) -> dict:
    if arguments.num_beams == 1 and arguments.temperature != 0:
        temperature = 1.0 if arguments.temperature is None else arguments.temperature
        top_p = 1.0 if arguments.top_p is None else arguments.top_p
        if temperature < 0 or not 0 < top_p <= 1:
            raise ValueError(f"temperature is {temperature} and top-p {top_p}; wanted 0 or more, and above 0 up to 1.")
        return {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    if arguments.top_p is not None or arguments.temperature:
        raise ValueError("--temperature and --top-p have no effect on a search: leave out --num-beams, or them.")
    if arguments.num_samples > 1:
        raise ValueError("--num-samples: a search finds the same motion every time; sample instead.")
    return {"num_beams": arguments.num_beams, "do_sample": False}


def _generate(arguments: argparse.Namespace) -> int:
    from .generation import generate_motions
    from .motion_input import import_options

    if arguments.task == "text-to-motion" and not (arguments.texts and all(map(str.strip, arguments.texts))):
        raise ValueError("give a TEXT: what the motion is to show.")
    if arguments.task != "text-to-motion" and (arguments.texts or arguments.sequence):
        raise ValueError(f"{arguments.task} has no use for a TEXT or --sequence.")
    rows = generate_motions(
        arguments.model,
        [arguments.texts] if arguments.sequence else arguments.texts,
        arguments.output,
        task=arguments.task,
        motion=arguments.motion,
        import_options=import_options(arguments),
        keep=arguments.keep,
        num_frames=arguments.frames,
        duration=arguments.seconds,
        num_samples=arguments.num_samples,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        animation=None if arguments.no_animation else arguments.format,
        **_sampling(arguments),
    )
    for row in rows:
        print(f"{arguments.output / row['file']}: {row['frames']} frames, {row['seconds']} s")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from .data.motion_folder import check_writable
    from .evaluation.results import save_json

    _refuse_options_of_others(arguments)
    if arguments.output:
        if not arguments.model and arguments.output.is_dir():
            raise ValueError(f"{arguments.output} is a folder; the output is a JSON file here: name one in it.")
        check_writable(arguments.output)
    if arguments.predictions:
        result = _score_predictions(arguments)
    elif arguments.model:
        return _evaluate_model(arguments)
    else:
        result = _evaluate_motions(arguments)
    if arguments.output:
        print(f"saved {save_json(result, arguments.output)}")
    return 0


_OF_CAPTIONS = ("convention", "reference_policy", "bert_model", "bert_layer", "bert_rescale")
_OF_EVALUATOR = ("evaluator", "replications", "pool_size", "last_pool", "seed")
_OF_POPULATION = ("data", "split", "representation", "min_frames", "max_frames", "no_mirrored")
_OF_MODEL = (*_OF_POPULATION, "model", "task", "num_beams", "batch_size", "update_card")
_OF_MOTIONS = (*_OF_MODEL, *_OF_EVALUATOR, "temperature", "top_p", "guidance_scale", "denoising_steps")
# What is measured, of a model by its task -> the options that have a say in it.
_OPTIONS = {
    "motion-to-text": (*_OF_MODEL, *_OF_CAPTIONS, *_OF_EVALUATOR, "labels", "max_new_tokens"),
    "text-to-motion": (*_OF_MOTIONS, "labels", "judge", "lengths", "num_samples"),
    "motion-prediction": (*_OF_MOTIONS, "keep"),
    "motion-in-between": (*_OF_MOTIONS, "keep"),
    "motion-duration": (*_OF_MODEL, "max_new_tokens"),
    "predictions": (*_OF_CAPTIONS, "predictions", "references", "track", "system"),
    "motions": (*_OF_EVALUATOR, *_OF_POPULATION, "motions", "labels"),
    "probes": (*_OF_CAPTIONS, *_OF_EVALUATOR, *_OF_POPULATION, "probes", "labels"),
    "retrieval": (*_OF_EVALUATOR, *_OF_POPULATION, "retrieval", "labels"),
}
_TASKS_OF_MOTIONS = ("text-to-motion", "motion-prediction", "motion-in-between")


def _refuse_options_of_others(arguments: argparse.Namespace) -> None:
    """An option that would have no effect is a mistake of whoever typed it."""
    others = ("predictions", "motions", "probes", "retrieval")
    measured = arguments.task if arguments.model else next(name for name in others if getattr(arguments, name))
    defaults = vars(_parser().parse_args(["evaluate", "--probes"]))
    known = {*_OPTIONS[measured], "probes", "output", "command"}
    idle = [name for name, value in vars(arguments).items() if name not in known and value != defaults[name]]
    if idle:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        of_model = "a model" if measured == "motion-to-text" else f"--task {measured}"
        raise ValueError(f"{options}: no effect on {of_model if arguments.model else f'--{measured}'}.")


def _score_predictions(arguments: argparse.Namespace) -> dict:
    from .evaluation.predictions import score_predictions
    from .evaluation.report import metric_table
    from .evaluation.resumable import join_processes

    result = score_predictions(
        arguments.predictions,
        arguments.references,
        convention=arguments.convention,
        reference_policy=arguments.reference_policy,
        track=arguments.track,
        system=arguments.system,
        bert_model=arguments.bert_model,
        bert_layer=arguments.bert_layer,
        bert_rescale=arguments.bert_rescale,
        device=join_processes().device,
    )
    print(metric_table(result["metrics"]))
    return {**result, "command": arguments.command}


def _evaluate_motions(arguments: argparse.Namespace) -> dict:
    """Of `--motions`, `--probes` and `--retrieval`."""
    from .evaluation.probes import probe_table
    from .evaluation.protocol import evaluate_motions, evaluate_probes, evaluate_retrieval
    from .evaluation.report import metric_table

    evaluator = _evaluator(arguments)
    if evaluator is None:
        raise ValueError(
            "give --evaluator: motions are compared in its space. `geomotiongpt train-evaluator` makes one."
        )
    common = {"reader": _attribute_reader(arguments.labels), "command": arguments.command}
    if arguments.probes:
        captioning = _captioning_protocol(arguments)
        result = evaluate_probes(_population(arguments), evaluator, captioning=captioning, **common)
        print(probe_table(result["metrics"]))
        return result
    if arguments.motions:
        result = evaluate_motions(arguments.motions, _population(arguments), evaluator, **common)
    else:
        result = evaluate_retrieval(_population(arguments), evaluator, **common)
    print(metric_table(result["metrics"]))
    return result


def _evaluate_model(arguments: argparse.Namespace) -> int:
    from .evaluation.protocol import RESULT
    from .evaluation.report import metric_table, update_model_card
    from .evaluation.results import name_data

    card = Path(arguments.model) / "README.md"
    if arguments.update_card and not card.is_file():
        raise FileNotFoundError(f"{card}: no model card to update.")
    of_task = "evaluation" if arguments.task == "motion-to-text" else f"evaluation/{arguments.task}"
    output = arguments.output or Path(of_task)
    if output.is_file():
        raise ValueError(f"{output} is a file; the evaluation of a model is a folder: name another.")
    if (output / RESULT).is_file():
        protocol = json.loads((output / RESULT).read_text(encoding="utf-8")).get("protocol", {})
        task = protocol.get("task", "something else")
        if task != arguments.task:
            raise ValueError(f"{output} has the result of {task}, which would be lost: name another --output.")
    result = _task_result(arguments, output)
    if result is None:  # the first process says it all
        return 0
    print(metric_table(result["metrics"]))
    if arguments.update_card:
        update_model_card(card, result, name_data(arguments.data))
    print(f"saved {output}/: result.json, report.md, and what the model made")
    return 0


def _task_result(arguments: argparse.Namespace, output: Path) -> dict | None:
    """A model's result in the task asked for."""
    from .evaluation.generation import evaluate_completion, evaluate_durations, evaluate_text_to_motion
    from .evaluation.generator import MotionRequest
    from .evaluation.protocol import evaluate_model

    common = {"batch_size": arguments.batch_size, "command": arguments.command}
    model, population = arguments.model, _population(arguments)
    if arguments.task in _TASKS_OF_MOTIONS:
        numbers = {name: getattr(arguments, name) for name in ("task", "lengths", "keep", "num_samples", "seed")}
        common |= {"request": MotionRequest(**numbers), "decoding": _sampling(arguments)}
    else:
        decoding = {"do_sample": False, "num_beams": arguments.num_beams}
        decoding |= {} if arguments.max_new_tokens is None else {"max_new_tokens": arguments.max_new_tokens}
    if arguments.task == "motion-duration":
        return evaluate_durations(model, population, output, decoding=decoding, **common)
    if arguments.task in ("motion-prediction", "motion-in-between"):
        return evaluate_completion(model, population, output, evaluator=_evaluator(arguments), **common)
    common |= {"reader": _attribute_reader(arguments.labels)}
    if arguments.task == "text-to-motion":
        judge = _judge(arguments)
        return evaluate_text_to_motion(
            model, population, output, evaluator=_evaluator(arguments), judge=judge, **common
        )
    return evaluate_model(
        model,
        population,
        output,
        captioning=_captioning_protocol(arguments),
        evaluator=_evaluator(arguments),
        num_beams=arguments.num_beams,
        max_new_tokens=arguments.max_new_tokens,
        **common,
    )


def _judge(arguments: argparse.Namespace):
    from .checkpoints import load_captioner
    from .evaluation.generation import Judge
    from .evaluation.resumable import join_processes

    if arguments.labels and not (arguments.judge or arguments.evaluator):
        raise ValueError("--labels: no effect without --judge or --evaluator.")
    if not arguments.judge:
        return None
    reader = _attribute_reader(arguments.labels)
    if reader is None:
        raise ValueError("--judge: give --labels, the words that name actions, or `embedded`.")
    model, processor = load_captioner(arguments.judge)
    return Judge(arguments.judge, model.to(join_processes().device).eval(), processor, reader)


def _population(arguments: argparse.Namespace):
    from .evaluation.protocol import Population

    if not arguments.data:
        raise ValueError("give --data: the folder of a data set, or its name on the Hub.")
    return Population(
        arguments.data,
        arguments.split,
        arguments.min_frames,
        arguments.max_frames,
        not arguments.no_mirrored,
        arguments.representation,
    )


def _captioning_protocol(arguments: argparse.Namespace):
    from .evaluation.protocol import CaptioningProtocol

    return CaptioningProtocol(
        arguments.convention,
        arguments.reference_policy,
        arguments.bert_model,
        arguments.bert_layer,
        arguments.bert_rescale,
    )


def _evaluator(arguments: argparse.Namespace):
    from .checkpoints import check_model_folder
    from .evaluation.embeddings import load_evaluator
    from .evaluation.resumable import join_processes
    from .evaluation.semantics import Evaluator

    if not arguments.evaluator:
        return None
    check_model_folder(arguments.evaluator)
    model, processor = load_evaluator(arguments.evaluator, device=join_processes().device)
    sizes = {name: getattr(arguments, name) for name in ("replications", "seed", "pool_size", "last_pool")}
    return Evaluator(arguments.evaluator, model, processor, **sizes)


def _attribute_reader(labels: str | None):
    from .evaluation.attributes import AttributeWords, EmbeddedAttributes

    if labels in (None, "embedded"):
        return EmbeddedAttributes() if labels else None
    try:
        return AttributeWords.from_labels(json.loads(Path(labels).read_text(encoding="utf-8-sig")))
    except json.JSONDecodeError as error:
        raise ValueError(f"{labels} is no JSON: {error}") from error


def _convert(arguments: argparse.Namespace) -> int:
    from .checkpoints import convert_evaluator, convert_motion_tokenizer
    from .convert_motiongpt3 import convert_motiongpt3, is_published_motiongpt3
    from .data.motion_folder import check_writable

    check_writable(arguments.output)
    if is_published_motiongpt3(arguments.checkpoint):
        names = ("motion_tokenizer", "word_vectors", "words")
        if idle := [name for name in names if getattr(arguments, name) is not None]:
            raise ValueError(f"--{idle[0].replace('_', '-')}: no effect on a MotionGPT3 checkpoint.")
        parts = {name: getattr(arguments, name) for name in ("data", "text_tokenizer")}
        print(convert_motiongpt3(arguments.checkpoint, arguments.output, **parts))
        return 0
    _refuse_options_of_other_conversions(arguments)
    if arguments.motion_tokenizer is not None:
        from .convert_language_model import convert_language_model

        parts = {name: getattr(arguments, name) for name in ("motion_tokenizer", "text_tokenizer")}
        print(convert_language_model(arguments.checkpoint, arguments.output, **parts))
        return 0
    if arguments.word_vectors is None:
        print(convert_motion_tokenizer(arguments.checkpoint, arguments.output, data=arguments.data))
        return 0
    if arguments.data is None:
        raise ValueError("give --data: the folder with the mean.npy and std.npy that the evaluator was trained with.")
    print(
        convert_evaluator(
            arguments.checkpoint,
            arguments.output,
            statistics=arguments.data,
            word_vectors=arguments.word_vectors,
            words=arguments.words,
        )
    )
    return 0


_OF_CONVERSIONS = {"motion_tokenizer": {"text_tokenizer"}, "word_vectors": {"data", "words"}, None: {"data"}}


def _refuse_options_of_other_conversions(arguments: argparse.Namespace) -> None:
    kind = next((name for name in ("motion_tokenizer", "word_vectors") if getattr(arguments, name) is not None), None)
    idle = {"data", "words", "word_vectors", "text_tokenizer"} - {kind} - _OF_CONVERSIONS[kind]
    given = [f"--{name.replace('_', '-')}" for name in sorted(idle) if getattr(arguments, name) is not None]
    if given:
        of = f"with --{kind.replace('_', '-')}" if kind else "without --motion-tokenizer or --word-vectors"
        raise ValueError(f"{', '.join(given)}: no effect {of}.")


def _push(arguments: argparse.Namespace) -> int:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    from .checkpoints import check_model_folder

    check_model_folder(arguments.folder)
    if not arguments.folder.is_dir():
        raise FileNotFoundError(f"{arguments.folder}: no such folder; push what save_pretrained or a training wrote.")
    api = HfApi()
    # Nor what a run says about the machine, or quotes of its data
    ignored = ["checkpoint-*", "adapter/*", "*.bin", "*.pt", "trainer_state.json", "caption_samples.jsonl", "runs/*"]
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
