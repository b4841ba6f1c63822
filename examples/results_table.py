"""Writes the tables of README.md from the committed results, so that text and figures cannot drift apart.

python examples/results_table.py          prints them
python examples/results_table.py --write  puts them into README.md
"""

import argparse
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
START, END = "<!-- results: python examples/results_table.py --write -->", "<!-- end of results -->"
QUICKSTART = "hub_configs/geomotiongpt-tiny/results.json"
REAL = "hub_configs/geomotiongpt-real-motion/results.json"
REAL_512 = "hub_configs/geomotiongpt-real-motion/results_512_codes.json"
LOSSES = "examples/benchmarks/tokenizer_losses.json"
EVALUATIONS = {
    "real, test": "hub_configs/geomotiongpt-real-motion/evaluation_test.json",
    "real, test_unseen": "hub_configs/geomotiongpt-real-motion/evaluation_test_unseen.json",
    "embedded, test": "hub_configs/geomotiongpt-tiny/evaluation.json",
}
PROBES = "hub_configs/geomotiongpt-real-motion/probes.json"
SYSTEMS = "examples/benchmarks/captioning_systems.json"
TINY_BOTH, REAL_BOTH = "hub_configs/geomotiongpt-tiny-generation", "hub_configs/geomotiongpt-real-motion-generation"
MADE = {
    "embedded, test": f"{TINY_BOTH}/text_to_motion.json",
    "embedded, free length": f"{TINY_BOTH}/text_to_motion_free.json",
    "real, test": f"{REAL_BOTH}/text_to_motion.json",
    "real, test_unseen": f"{REAL_BOTH}/text_to_motion_unseen.json",
}
COMPLETED = {
    f"{data}, {task}": f"{folder}/motion_{task.replace('-', '_')}.json"
    for data, folder in (("embedded", TINY_BOTH), ("real", REAL_BOTH))
    for task in ("prediction", "in-between")
}
DURATIONS = {"embedded": f"{TINY_BOTH}/motion_duration.json", "real": f"{REAL_BOTH}/motion_duration.json"}
CAPTIONED = {
    "embedded, both directions": f"{TINY_BOTH}/motion_to_text.json",
    "embedded, captioning alone": f"{TINY_BOTH}/motion_to_text_alone.json",
    "real, both directions": f"{REAL_BOTH}/motion_to_text.json",
    "real, captioning alone": f"{REAL_BOTH}/motion_to_text_alone.json",
}
# Of the same evaluators as the motions that are made.
RECONSTRUCTED = {
    "embedded, test": CAPTIONED["embedded, both directions"],
    "embedded, free length": CAPTIONED["embedded, both directions"],
    "real, test": CAPTIONED["real, both directions"],
    "real, test_unseen": f"{REAL_BOTH}/motion_to_text_unseen.json",
}
# The same motions, evaluators and judges for all of them.
FAMILIES = {
    "GeoMotionGPT": {"embedded": TINY_BOTH, "real": REAL_BOTH},
    "MotionGPT3": {"embedded": "hub_configs/motiongpt3-tiny", "real": "hub_configs/motiongpt3-real-motion"},
    "LLaMo": {"embedded": "hub_configs/llamo-tiny", "real": "hub_configs/llamo-real-motion"},
    "MotionGPT3's base with codes (VQ)": {"embedded": "hub_configs/motiongpt3-tiny/vq"},
}
STATED = {data: f"{folder}/text_to_motion_stated.json" for data, folder in FAMILIES["LLaMo"].items()}
POPULATIONS = {
    "embedded data, test": ("embedded", ""),
    "real motion, test": ("real", ""),
    "real motion, test_unseen": ("real", "_unseen"),
}
FAMILY_METRICS = {
    "text_to_motion": {
        "judged_action": "motions made: action right, as the judge sees it ↑",
        "judged_side": "side right ↑",
        "judged_style": "style right ↑",
        "motion_to_text_r_at_1": "R@1 ↑",
        "motion_to_text_r_at_3": "R@3 ↑",
        "mm_dist": "MM-Dist ↓",
        "fid": "FID ↓",
        "fid_over_floor": "FID of half of them over its floor ↓",
        "diversity": "Diversity",
        "multimodality": "MultiModality",
        "jerk_m_per_s3": "jerk, m/s³",
        "foot_skating_over_ground_truth": "foot skating over the real motions' ↓",
    },
    "motion_to_text": {
        "action": "captions: action right ↑",
        "side": "side right ↑",
        "style": "style right ↑",
        "bleu_4": "BLEU-4 ↑",
        "rouge_l": "ROUGE-L ↑",
        "cider": "CIDEr ↑",
        "joint_error_mm": "reconstruction: joint error, mm ↓",
        "mpjpe_mm": "global MPJPE, mm ↓",
        "reconstruction_fid": "FID ↓",
        "reconstruction_jerk_m_per_s3": "jerk, m/s³",
    },
    "motion_prediction": {
        "fid_over_floor": "going on after a quarter: FID of half of them over its floor ↓",
        "ade_mm": "ADE of one sample, mm, relative to the root ↓",
        "seam_above_data_p99": "seams above the data's 99th percentile ↓",
    },
    "motion_in_between": {
        "fid_over_floor": "between two quarters: FID of half of them over its floor ↓",
        "ade_mm": "ADE ↓",
        "seam_above_data_p99": "seams above the data's 99th percentile ↓",
    },
    "motion_duration": {"duration_within_10_percent": "durations told within a tenth ↑"},
}
FORGETTING = "examples/benchmarks/forgetting.json"
STREAMING = "examples/benchmarks/streaming.json"
STREAMS = "examples/benchmarks/streams.json"
TWO_MODES = "examples/benchmarks/two_modes.json"
SWITCHES = "examples/benchmarks/geometry_switches.json"
DECODING = "examples/benchmarks/decoding.json"
ROUTED = "examples/benchmarks/routed_branches.json"
STEP = "examples/benchmarks/language_model_step.json"
TOKENIZING = "examples/benchmarks/batched_tokenizing.json"
DATA_SPEED = "examples/benchmarks/data_speed.json"
IMPORTED = "examples/benchmarks/import_table.json"


def main() -> None:
    """Prints or writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if not arguments.write:
        print(tables())
        return
    readme = ROOT / "README.md"
    readme.write_text(with_tables(readme.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(text: str) -> str:
    """A README with its tables made anew."""
    before, rest = text.split(START)
    after = rest.split(END)[1]
    return f"{before}{START}\n{tables()}\n{END}{after}"


def tables() -> str:
    """The tables of all results that are committed, as Markdown."""
    makers = {REAL: real_motion_table, QUICKSTART: quickstart_table, EVALUATIONS["embedded, test"]: evaluation_table}
    makers |= {MADE["embedded, test"]: generation_tables}
    makers |= {f"{FAMILIES['MotionGPT3']['real']}/text_to_motion.json": families_table, STREAMS: streams_table}
    makers |= {FORGETTING: forgetting_figures, STREAMING: streaming_table}
    makers |= {TWO_MODES: two_modes_table, SWITCHES: switches_table}
    makers |= {PROBES: probes_table, SYSTEMS: systems_table, LOSSES: losses_table, STEP: speed_table}
    makers |= {IMPORTED: import_table}
    return "\n\n".join(make() for name, make in makers.items() if (ROOT / name).is_file())


def load(name: str) -> dict:
    """A committed result."""
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


def percent(score: dict) -> str:
    """A share with its number of motions."""
    return f"{score['mean']:.1%} of {score['n']}"


def real_motion_table() -> str:
    """The real motion set."""
    result = load(REAL)
    metrics, seconds = result["metrics"], result["model"]["seconds"]
    rows = ["| | test | test_unseen |", "|---|---|---|"]
    for key, name in (("joint_error_mm", "joint error, mm"), ("mpjpe_mm", "global MPJPE, mm")):
        rows.append(f"| {name} | {metrics[f'test_{key}']:.1f} | {metrics[f'test_unseen_{key}']:.1f} |")
    for key in ("action", "side", "style"):
        rows.append(
            f"| {key} named right | {percent(metrics[f'test_{key}'])} | {percent(metrics[f'test_unseen_{key}'])} |"
        )
    minutes = sum(seconds.values()) / 60
    wider = load(REAL_512)["metrics"]
    return "\n".join(
        [
            "**Real motion, templated captions** (2,479 clips of the Bandai-Namco Research set; `test_unseen` holds",
            f"pairs of action and style that training never sees; {minutes:.0f} minutes of training, CPU threads: "
            f"{result['environment']['threads']};",
            f"`{result['command']}`, [results.json]({REAL})):",
            "",
            *rows,
            "",
            f"{metrics['train_codes_used']} of {metrics['num_codes']} codes in use on the training split, perplexity "
            f"{metrics['train_perplexity']:.0f}; after the second stage the largest cosine between two codes is "
            f"{metrics['language_model_max_abs_cosine']:.3f} and ||G - I||² exceeds its floor by "
            f"{metrics['language_model_gram_error_excess']:.3f}. With 512 codes of 512 dimensions "
            f"([results]({REAL_512})): {wider['train_codes_used']} in use, "
            f"perplexity {wider['train_perplexity']:.0f}, joint error "
            f"{wider['test_joint_error_mm']:.1f} and {wider['test_unseen_joint_error_mm']:.1f} mm.",
        ]
    )


def quickstart_table() -> str:
    """The embedded data."""
    metrics = load(QUICKSTART)["metrics"]
    return "\n".join(
        [
            f"**Embedded synthetic motion** (`make quickstart`, [results.json]({QUICKSTART})), motions held out:",
            "",
            "| actions right | side right | joint error, mm | codes used | perplexity |",
            "|---|---|---|---|---|",
            f"| {percent(metrics['action'])} | {percent(metrics['side'])} | {metrics['joint_error_mm']:.1f} | "
            f"{metrics['codes_used']} | {metrics['perplexity']:.0f} |",
        ]
    )


def score(value: float | dict) -> str:
    """A metric, with its interval where it has one."""
    if not isinstance(value, dict):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    interval = "" if not value["ci95"] else f" ± {value['ci95']:.2g}"
    return f"{value['mean']:.3g}{interval}"


def cell(metrics: dict, key: str) -> str:
    """A metric, or nothing where it was not measured."""
    return score(metrics[key]) if key in metrics else ""


def evaluation_table() -> str:
    """Our models, by `geomotiongpt evaluate`."""
    results = {name: load(path) for name, path in EVALUATIONS.items()}
    rows = [f"| | {' | '.join(results)} |", f"|---|{'---|' * len(results)}"]
    for key, name in (
        ("bleu_4", "BLEU-4"),
        ("rouge_l", "ROUGE-L"),
        ("cider", "CIDEr"),
        ("motion_to_text_r_at_1", "R@1, motion to text"),
        ("label_aware_motion_to_text_r_at_1", "the same, equal meanings right"),
        ("ground_truth_label_aware_motion_to_text_r_at_1", "the same, of the references"),
        ("mm_dist", "MM-Dist"),
        ("ground_truth_mm_dist", "the same, of the references"),
        ("reconstruction_fid", "reconstruction FID"),
        ("fid_floor", "split-half floor of FID"),
        ("pa_mpjpe_mm", "PA-MPJPE, mm"),
        ("reconstruction_jerk_m_per_s3", "jerk of the reconstruction, m/s³"),
        ("ground_truth_jerk_m_per_s3", "jerk of the motion, m/s³"),
    ):
        rows.append(f"| {name} | {' | '.join(score(result['metrics'][key]) for result in results.values())} |")
    protocol = next(iter(results.values()))["protocol"]
    links = ", ".join(f"[{name}]({path})" for name, path in EVALUATIONS.items())
    return "\n".join(
        [
            f"**The same models by `geomotiongpt evaluate`** ({links}; convention `{protocol['convention']}`,",
            f"references `{protocol['reference_policy']}`, pools of {protocol['pool_size']}, "
            f"{protocol['replications']} replications, mean ± 95% interval; an evaluator of its own for each data,",
            "so that columns of different data cannot be compared; the captions of both are templates):",
            "",
            *rows,
        ]
    )


def generation_tables() -> str:
    """Motions that our models make, and the captions of the same models."""
    results = {name: load(path)["metrics"] for name, path in MADE.items()}
    rows = [f"| | {' | '.join(results)} |", f"|---|{'---|' * len(results)}"]
    temperatures = [load(path)["protocol"]["decoding"].get("temperature") for path in MADE.values()]
    rows.append(
        f"| decoding | {' | '.join(f'temperature {value}' if value else 'greedy' for value in temperatures)} |"
    )
    for key, name in (
        ("judged_action", "action right, as the judge sees it ↑"),
        ("judged_side", "side right ↑"),
        ("judged_style", "style right ↑"),
        ("motion_to_text_r_at_1", "R@1 ↑"),
        ("motion_to_text_r_at_3", "R@3 ↑"),
        ("label_aware_motion_to_text_r_at_1", "R@1, equal meanings right ↑"),
        ("mm_dist", "MM-Dist ↓"),
        ("diversity", "Diversity"),
    ):
        cells = [
            f"{score(metrics[key])} ({score(metrics[f'ground_truth_{key}'])})" if key in metrics else ""
            for metrics in results.values()
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    for key, name in (
        ("multimodality", "MultiModality"),
        ("fid", "FID ↓"),
        ("fid_over_floor", "FID of half of them, over that between two halves of the real ones ↓"),
    ):
        rows.append(f"| {name} | {' | '.join(cell(metrics, key) for metrics in results.values())} |")
    reconstructed = {name: load(path) for name, path in RECONSTRUCTED.items()}
    for name, other in reconstructed.items():
        assert other["protocol"]["evaluator_sha256"] == load(MADE[name])["protocol"]["evaluator_sha256"], name
    cells = [score(other["metrics"]["reconstruction_fid_over_floor"]) for other in reconstructed.values()]
    rows.append(f"| the same of the tokenizer's reconstructions | {' | '.join(cells)} |")
    for key, name in (
        ("foot_skating_over_ground_truth", "foot skating over the real motions' ↓"),
        ("relative_length_error", "error of the length, as a share ↓"),
    ):
        rows.append(f"| {name} | {' | '.join(cell(metrics, key) for metrics in results.values())} |")
    completed = {name: load(path)["metrics"] for name, path in COMPLETED.items()}
    others = [f"| | {' | '.join(completed)} |", f"|---|{'---|' * len(completed)}"]
    for key, name in (
        ("ade_mm", "ADE of one sample, mm, relative to the root ↓"),
        ("fde_mm", "FDE ↓"),
        ("world_ade_mm", "ADE in the world ↓"),
        ("world_fde_mm", "FDE in the world ↓"),
    ):
        cells = [f"{score(metrics[key])} ({score(metrics[f'baseline_{key}'])})" for metrics in completed.values()]
        others.append(f"| {name} | {' | '.join(cells)} |")
    for key, name in (
        ("fid_over_floor", "FID of half of them, over that between two halves of the real ones ↓"),
        ("seam_above_data_p99", "seams above the data's 99th percentile (1% would be natural) ↓"),
    ):
        cells = [
            score(metrics[key]) + (f" ({score(metrics[f'ground_truth_{key}'])})" if "seam" in key else "")
            for metrics in completed.values()
        ]
        others.append(f"| {name} | {' | '.join(cells)} |")
    durations = " and ".join(
        f"{percent(metrics['duration_within_10_percent'])} ({name}, off by {metrics['duration_error_seconds']:.2f} s)"
        for name, metrics in ((name, load(path)["metrics"]) for name, path in DURATIONS.items())
    )
    captions = ["| captions of the same models | action right ↑ | side right ↑ |", "|---|---|---|"]
    for name, path in CAPTIONED.items():
        metrics = load(path)["metrics"]
        captions.append(f"| {name} | {percent(metrics['action'])} | {percent(metrics['side'])} |")
    return "\n".join(
        [
            "**Motions made, by `geomotiongpt evaluate --task ...`** (recipes and results in",
            f"[{TINY_BOTH}]({TINY_BOTH}) and",
            f"[{REAL_BOTH}]({REAL_BOTH});",
            "of the first caption of each motion, at the length of the data unless free; in brackets the same of the "
            "real motions;",
            "evaluators of their own, which are not those of the table above; judges trained apart, behind motion "
            "tokenizers of their own):",
            "",
            *rows,
            "",
            "A quarter of each motion given, at the start or at both ends; its codes are kept in all of them (in "
            "brackets the same",
            "of a pose that is held, or of poses on a line between the ends; of seams, that of the real motions):",
            "",
            *others,
            "",
            f"Durations told within a tenth: {durations}.",
            "",
            *captions,
        ]
    )


def measured_tasks(folder: Path, suffix: str) -> dict[str, dict]:
    """The committed results of a model, by task."""
    tasks = ("text_to_motion", "motion_to_text", "motion_prediction", "motion_in_between", "motion_duration")
    files = {task: folder / f"{task}{suffix}.json" for task in tasks}
    return {task: load(str(path)) for task, path in files.items() if path.is_file()}


def families_table() -> str:
    """Discrete and continuous motion on the same ruler."""
    blocks = []
    for population, (data, suffix) in POPULATIONS.items():
        measured = {
            family: measured_tasks(ROOT / folders[data], suffix)
            for family, folders in FAMILIES.items()
            if data in folders
        }
        results = {
            name: tasks for name, tasks in measured.items() if {"text_to_motion", "motion_to_text"} <= set(tasks)
        }
        if len(results) > 1:
            blocks += ["", *family_rows(population, results)]
    return "\n".join(
        [
            "**Discrete and continuous motion, the same motions, evaluator and judge** (results in the folders of the",
            f"recipes, [{FAMILIES['MotionGPT3']['embedded']}]({FAMILIES['MotionGPT3']['embedded']}) and",
            f"[{FAMILIES['MotionGPT3']['real']}]({FAMILIES['MotionGPT3']['real']}) for MotionGPT3,",
            f"[{FAMILIES['LLaMo']['embedded']}]({FAMILIES['LLaMo']['embedded']}) and",
            f"[{FAMILIES['LLaMo']['real']}]({FAMILIES['LLaMo']['real']}) for LLaMo;",
            "one run each, the continuous ones trained longer; motions at the length of the data; in brackets the "
            "same of the real motions):",
            *blocks,
            *stated_lines(),
        ]
    )


def stated_lines() -> list[str]:
    """How close LLaMo's exit head comes to a length that the prompt states."""
    results = {data: load(path)["metrics"] for data, path in STATED.items() if (ROOT / path).is_file()}
    if not results:
        return []
    told = " and ".join(
        f"{percent(metrics['length_within_one_token'])} ({data}; off by {metrics['relative_length_error']:.1%} of it)"
        for data, metrics in results.items()
    )
    links = ", ".join(f"[{data}]({STATED[data]})" for data in results)
    return [
        "",
        f"LLaMo's exit head ends a motion within four frames of a length that the prompt states: {told}; {links}.",
    ]


def family_rows(population: str, results: dict[str, dict]) -> list[str]:
    """A table of one population; all were measured by the same networks on the same motions."""
    for task, key in (("text_to_motion", "judge_sha256"), ("motion_to_text", "evaluator_sha256")):
        protocols = [tasks[task]["protocol"] for tasks in results.values()]
        for name in (key, "population"):
            assert all(protocol[name] == protocols[0][name] for protocol in protocols), (population, task, name)
    rows = [f"| {population} | {' | '.join(results)} |", f"|---|{'---|' * len(results)}"]
    sizes = [f"{tasks['text_to_motion']['model']['parameters'] / 1e6:.1f}" for tasks in results.values()]
    rows.append(f"| parameters, millions | {' | '.join(sizes)} |")
    for task, metrics in FAMILY_METRICS.items():
        for key, name in metrics.items():
            cells = []
            for tasks in results.values():
                values = tasks[task]["metrics"] if task in tasks else {}
                truth = f"ground_truth_{key.removeprefix('reconstruction_')}"
                told = f" ({score(values[truth])})" if truth in values else ""
                cells.append(cell(values, key) + told if key in values else "")
            if any(cells):
                rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def forgetting_figures() -> str:
    """Text before and after motion."""
    result = load(FORGETTING)
    rows = ["| | text weights | text logits | perplexity of held-out text |", "|---|---|---|---|"]
    for name, figures in result["metrics"].items():
        if "perplexity_over_base" not in figures:
            rows.append(f"| {name}, the base | | | {figures['perplexity']:.2f} |")
            continue
        same = [
            "the base's, bit for bit" if figures[f"{key}_equal_base"] else "others" for key in ("weights", "logits")
        ]
        over = f"{figures['perplexity']:.2f}, {figures['perplexity_over_base']:.3g} times the base's"
        rows.append(f"| {name} | {same[0]} | {same[1]} | {over} |")
    return "\n".join(
        [
            f"**Is language forgotten?** (LLaMo on the embedded data, its stages and a control of a single stream; "
            f"{result['data']['name']}; `{result['command']}`, [JSON]({FORGETTING})):",
            "",
            *rows,
        ]
    )


def streaming_table() -> str:
    """Frames per second of a LLaMo, where the time goes, and memory."""
    result = load(STREAMING)
    metrics, environment = result["metrics"], result["environment"]
    rows = [
        "| | Euler steps | guidance | first frame after, s | frames a second | flow loop | language model | decoder |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size, facts in result["model"].items():
        for steps in (10, 25, 50):
            for guided in ("unguided", "guided"):
                name = f"{size}_steps_{steps}_{guided}_batch_1"
                shares = [
                    f"{metrics[f'{name}_{part}_share']:.0%}" for part in ("flow_loop", "language_model", "decoder")
                ]
                rows.append(
                    f"| {size}, {facts['parameters'] / 1e6:.0f} M | {steps} | {4 if guided == 'guided' else ''} | "
                    f"{metrics[f'{name}_seconds_to_first_frame']:.2g} | {metrics[f'{name}_frames_per_second']:.3g} | "
                    f"{' | '.join(shares)} |"
                )
    memory = ", ".join(f"{metrics[f'tiny_memory_{minutes}_minutes_process_peak_mb']:.0f} MB" for minutes in (1, 5, 10))
    return "\n".join(
        [
            f"**LLaMo's streaming** (random weights, 272 features at 30 frames a second, {environment['device']}, "
            f"threads: {environment['threads']}, time {result['protocol']['time']}; `{result['command']}`, "
            f"[JSON]({STREAMING})):",
            "",
            *rows,
            "",
            f"A stream of the tiny model, most memory of the process up to 1, 5 and 10 minutes: {memory}. "
            f"All modulations of the head at once "
            f"against the whole network at every step: {metrics['tiny_flow_loop_guided_speedup']:.1f} times as fast "
            f"(tiny, guided); the language model's cache against full passes: "
            f"{metrics['tiny_full_passes_over_cache']:.1f} times.",
        ]
    )


def streams_table() -> str:
    """A branch of its own for motion against one stream."""
    result = load(STREAMS)
    protocol, figures = result["protocol"], result["metrics"]
    steps = [point["step"] for point in figures["dual_text_to_motion"]]
    blocks = []
    for stage, loss, key in (
        ("text_to_motion", "denoising loss", "judged_action"),
        ("alignment", "language modelling loss", "action"),
    ):
        rows = [
            f"| {stage.replace('_', ' ')}: steps | {' | '.join(map(str, steps))} |",
            f"|---|{'---|' * len(steps)}",
        ]
        for streams in ("dual", "single"):
            points = figures[f"{streams}_{stage}"]
            rows.append(f"| {loss}, {streams} | {' | '.join(score(point['loss']) for point in points)} |")
        for streams in ("dual", "single"):
            points = figures[f"{streams}_{stage}"]
            cells = [f"{point['scores'][key]['mean']:.3f}" for point in points]
            rows.append(f"| actions right, {streams} | {' | '.join(cells)} |")
        blocks += ["", *rows]
    return "\n".join(
        [
            f"**Two streams against one** ({result['data']['name']}, split {result['data']['split']}, text "
            f"{protocol['text']}, one seed; `{result['command']}`, [JSON]({STREAMS}),",
            f"[plot]({STREAMS.replace('.json', '.png')})):",
            *blocks,
        ]
    )


def two_modes_table() -> str:
    """A caption with two meanings."""
    result = load(TWO_MODES)
    figures, rows = result["metrics"], []
    for action, caption in result["protocol"]["captions"].items():
        cells = [
            " / ".join(f"{figures[f'{action}_{made}_{side}']:.0%}" for side in ("left", "right", "other"))
            for made in ("training", "denoising", "squared_error")
        ]
        rows.append(f"| {caption} | {' | '.join(cells)} |")
    return "\n".join(
        [
            "**A caption that means two things** (left / right / something else, as a judge sees "
            f"{result['protocol']['samples']} motions of each caption; what a squared error asks for is one latent,",
            f"the mean of the training motions, here at as many lengths; `{result['command']}`, [JSON]({TWO_MODES})):",
            "",
            "| caption | training motions | denoising head | optimum of the squared error |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def switches_table() -> str:
    """Every geometric switch."""
    result = load(SWITCHES)
    blocks = {
        "stage_1": (
            "first stage",
            (("joint_error_mm", "joint error, mm"), ("perplexity", "perplexity"), ("codes_used", "codes used")),
        ),
        "stage_2": (
            "second stage",
            (("lost", "lost"), ("loss_after", "loss"), ("action", "action"), ("side", "side")),
        ),
        "swaps": (
            "swap of a trained model",
            (("lost", "lost"), ("loss_before", "loss before"), ("loss_after", "after"), ("action", "action")),
        ),
    }
    geometry = (("gram_error", "gram error"), ("max_abs_cosine", "largest cosine"))
    lines = [
        f"**Every geometric switch for a short run** (embedded data, {result['protocol']['steps']} steps, "
        f"{result['protocol']['steps_after_a_swap']} after a swap, one seed: that each trains, not which is best;",
        "lost: ||G - G_0||_F^2 against the codebook at GPT-2's width, after a swap against the trained model;",
        f"`{result['command']}`, [JSON]({SWITCHES})):",
    ]
    for stage, (title, columns) in blocks.items():
        columns = (*columns, *geometry)
        lines += ["", f"| {title} | {' | '.join(name for _, name in columns)} |", f"|---|{'---|' * len(columns)}"]
        for name, figures in result["metrics"][stage].items():
            cells = [score(figures[key]) if key in figures else "" for key, _ in columns]
            lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def probes_table() -> str:
    """How metrics react to known damages."""
    result = load(PROBES)
    metrics = result["metrics"]
    rows = [f"| | {' | '.join(name.replace('_', ' ') for name in metrics)} |", f"|---|{'---|' * len(metrics)}"]
    for key, name in (
        ("label_aware_motion_to_text_r_at_1", "R@1, label-aware"),
        ("mm_dist", "MM-Dist"),
        ("fid", "FID"),
        ("diversity", "Diversity"),
        ("side_accuracy", "side told from mirror image"),
        ("jerk_m_per_s3", "jerk, m/s³"),
        ("foot_skating_ratio", "foot skating"),
        ("floating_mm", "floating, mm"),
        ("bleu_4", "BLEU-4"),
        ("cider", "CIDEr"),
    ):
        rows.append(f"| {name} | {' | '.join(score(values[key]) for values in metrics.values())} |")
    return "\n".join(
        [
            f"**What the metrics see** (real motion, `test`; `{result['command']}`, [JSON]({PROBES});",
            f"split-half floor of FID {score(metrics['ground_truth']['fid_floor'])}):",
            "",
            *rows,
        ]
    )


def systems_table() -> str:
    """Published captions, one ruler."""
    result = load(SYSTEMS)
    rows = ["| system | BLEU-1 | BLEU-4 | ROUGE-L | CIDEr | empty captions |", "|---|---|---|---|---|---|"]
    for name, metrics in result["metrics"].items():
        cells = [f"{metrics[key]:.2f}" for key in ("bleu_1", "bleu_4", "rouge_l", "cider")]
        cells.append(str(result["protocol"]["population"][name]["empty_predictions"]))
        rows.append(f"| {name} | {' | '.join(cells)} |")
    cases = next(iter(result["protocol"]["population"].values()))["n"]
    return "\n".join(
        [
            f"**Published captions of five systems, one ruler** (HumanML3D test, {cases} cases, "
            f"`{result['protocol']['convention']}`, {result['protocol']['track']} references, "
            f"`{result['protocol']['reference_policy']}`;",
            f"`{result['command']}`, [JSON]({SYSTEMS})):",
            "",
            *rows,
        ]
    )


def losses_table() -> str:
    """The paper's loss against the published code's."""
    result = load(LOSSES)
    rows = [
        "| losses | joint error, mm | global MPJPE, mm | perplexity | codes used | gram error |",
        "|---|---|---|---|---|---|",
    ]
    for name, metrics in result["metrics"].items():
        cells = [f"{metrics[key]['mean']:.3g} ± {metrics[key]['ci95']:.2g}" for key in result["protocol"]["columns"]]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    seeds = result["protocol"]["seeds"]
    return "\n".join(
        [
            f"**Losses of the motion tokenizer side by side** (real motion, {result['protocol']['steps']} steps, "
            f"{len(seeds)} seeds, mean ± 95% interval; `{result['command']}`, [JSON]({LOSSES})):",
            "",
            *rows,
        ]
    )


def import_table() -> str:
    """Motion files of others, and what a model sees in them."""
    result = load(IMPORTED)
    rows = [
        "| file | left hip | fps | frames, at 20 fps | by names, hierarchy, interpolated | feet above floor | speed | "
        "caption |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, facts in result["metrics"].items():
        matched = ", ".join(str(facts["matched"].get(how, 0)) for how in ("names", "hierarchy", "interpolated"))
        rows.append(
            f"| {name} | {facts['left_hip']} | {facts['fps']:g} | {', '.join(map(str, facts['frames']))} | "
            f"{matched} | {facts['floor_cm']:.1f} cm | {facts['speed_m_per_s']:.1f} m/s | {facts.get('caption', '')} |"
        )
    sided = sum(facts["sides"].startswith("left is left") for facts in result["metrics"].values())
    warned = sum(bool(facts["warnings"]) for facts in result["metrics"].values())
    heights = sorted(facts["height_m"] for facts in result["metrics"].values())
    return "\n".join(
        [
            f"**Motion files as found in the wild**, imported without a mapping (`{result['command']}`,",
            f"[JSON]({IMPORTED}); captions of the real-motion model). Left is left in {sided} of "
            f"{len(heights)} files, {warned} have warnings;",
            f"retargeted bodies are {heights[0]:.2f} to {heights[-1]:.2f} m high. `cmu_007_12` is a walk as fast as "
            "the training set runs;",
            "`cmu_002_03` is a run whose conversion has fixed the height of the pelvis:",
            "",
            *rows,
        ]
    )


def speed_table() -> str:
    """Ratios."""
    names = (STEP, TOKENIZING, DATA_SPEED, ROUTED)
    step, tokenizing, data, routed = (load(name)["metrics"] for name in names)
    gpt2, small = (
        {key.removeprefix(f"{size}_"): value for key, value in load(DECODING)["metrics"].items()}
        for size in ("gpt2", "small")
    )
    return "\n".join(
        [
            f"**Speed**, both sides in one run ([training step]({STEP}), [tokenizing]({TOKENIZING}), "
            f"[features]({DATA_SPEED}), [decoding]({DECODING}), [routed branches]({ROUTED})):",
            "",
            "| what | ratio |",
            "|---|---|",
            f"| training step, against a stock GPT-2 with as many tokens | {step['ours_over_stock']:.3f} |",
            f"| the same, labelled positions only, as in training | {step['ours_labelled_only_over_stock']:.3f} |",
            f"| all positions, motion encoded on the fly | {step['ours_encoding_motion_over_stock']:.3f} |",
            f"| all positions, text embeddings frozen | {step['ours_frozen_text_over_stock']:.3f} |",
            f"| tokenizing in batches against one by one, paper's size | {tokenizing['paper_speedup']:.1f} |",
            f"| tokenizing in batches against one by one, small model | {tokenizing['small_speedup']:.1f} |",
            f"| features of 32 clips at once against one by one | {data['features_speedup']:.1f} |",
            f"| constrained decoding against free, 32 at once, GPT-2 | {gpt2['constrained_over_free_batch']:.3f} |",
            f"| the same, one at a time | {gpt2['constrained_over_free_single']:.3f} |",
            f"| 32 captions one by one against a batch, GPT-2 | {gpt2['singly_over_batch']:.1f} |",
            f"| the same, small model | {small['singly_over_batch']:.1f} |",
            f"| both branches everywhere against routed, GPT-2, half motion | {routed['forward_speedup']:.1f} |",
            f"| the same, with the gradient | {routed['training_step_speedup']:.1f} |",
        ]
    )


if __name__ == "__main__":
    main()
