"""Has a language model forgotten language since it learned motion? Text weights, text logits and perplexity.

    python examples/benchmarks/forgetting.py BASE MODEL [MODEL ...] [--text FILE] [--output forgetting.json]

BASE is the language model that the trained LLaMo or MotionGPT3 models were made from. The text is by default the part
of Python's documentation that hub_configs/llamo-tiny/text.yaml holds out of its training; another base has seen it,
maybe, and a text file of one's own says more. After hub_configs/llamo-tiny, with its control of a single stream, whose
text weights train on the same data:

    python examples/benchmarks/forgetting.py runs/llamo-tiny/text runs/llamo-tiny/alignment runs/llamo-tiny/joint \\
        runs/llamo-tiny/motion runs/llamo-tiny/single_stream_alignment runs/llamo-tiny/single_stream_joint
"""

import argparse
import logging
from pathlib import Path

import torch

from geomotiongpt.data.documentation import python_documentation, split_documentation
from geomotiongpt.evaluation.forgetting import FIXED_PROMPTS, forgetting_table, measure_forgetting, model_name
from geomotiongpt.evaluation.results import make_result, save_json

HELD_OUT = "held-out part of Python's documentation"


def read_texts(path: Path | None) -> tuple[str, list[str]]:
    """What the text is called, and the text."""
    if path is None:
        return HELD_OUT, split_documentation(python_documentation())[1]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of text.")
    return path.name, [path.read_text(encoding="utf-8")]


def main() -> None:
    """Measures, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="language model that the others were made from, by name or path")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="trained LLaMo or MotionGPT3, by name or path")
    parser.add_argument("--text", type=Path, help="UTF-8 text that no training has seen")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    name, texts = read_texts(arguments.text)
    metrics = measure_forgetting(arguments.base, arguments.models, texts, device=arguments.device)
    print(forgetting_table(metrics))
    names = [model_name(model) for model in (arguments.base, *arguments.models)]
    result = make_result(
        command=" ".join(["python examples/benchmarks/forgetting.py", *names]),
        model={"base": names[0], "models": names[1:]},
        data={"name": name, "texts": len(texts), "characters": sum(map(len, texts))},
        protocol={"dtype": "float32", "vocabulary": "the base's", "prompts": len(FIXED_PROMPTS)},
        metrics=metrics,
    )
    print(f"saved {save_json(result, arguments.output)}")


if __name__ == "__main__":
    main()
