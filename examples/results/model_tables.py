"""Tables of trained models: captions, motions made, families side by side."""

from pathlib import Path

from committed import MULTIMODALITIES, ROOT, cell, load, percent, score

TINY_BOTH, REAL_BOTH = "hub_configs/geomotiongpt-tiny-generation", "hub_configs/geomotiongpt-real-motion-generation"
QUICKSTART = "hub_configs/geomotiongpt-tiny/results.json"
REAL = "hub_configs/geomotiongpt-real-motion/results.json"
REAL_512 = "hub_configs/geomotiongpt-real-motion/results_512_codes.json"
EVALUATIONS = {
    "real, test": "hub_configs/geomotiongpt-real-motion/evaluation_test.json",
    "real, test_unseen": "hub_configs/geomotiongpt-real-motion/evaluation_test_unseen.json",
    "embedded, test": "hub_configs/geomotiongpt-tiny/evaluation.json",
}
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
        "motion_to_text_r_at_1": "R@1, motion to text ↑",
        "motion_to_text_r_at_3": "R@3, motion to text ↑",
        "mm_dist": "MM-Dist ↓",
        "fid": "FID ↓",
        "fid_over_floor": "FID of half of them over its floor ↓",
        "diversity": "Diversity",
        **MULTIMODALITIES,
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


HEADLINE = {
    "motion_to_text": {"cider": "captions: CIDEr ↑", "action": "action named right ↑", "style": "style named right ↑"},
    "text_to_motion": {
        "judged_action": "motions made: action right, as a judge sees it ↑",
        "motion_to_text_r_at_3": "R@3, motion to text ↑",
        "fid_over_floor": "FID of half of them over that between halves of the data ↓",
        "jerk_m_per_s3": "jerk, m/s³",
    },
}


def headline_table() -> str:
    """Families in a few figures."""
    families = [family for family, folders in FAMILIES.items() if "real" in folders]
    rows = [f"| | | {' | '.join(families)} |", f"|---|---|{'---|' * len(families)}"]
    for population in ("real motion, test", "embedded data, test"):
        data, suffix = POPULATIONS[population]
        results = [measured_tasks(ROOT / FAMILIES[family][data], suffix) for family in families]
        check_ruler(population, results)
        first = population
        for task, metrics in HEADLINE.items():
            for key, name in metrics.items():
                values = [tasks[task]["metrics"] for tasks in results]
                cells = [cell_with_truth(figures, key) for figures in values]
                if any(cells):
                    rows.append(f"| {first} | {name} | {' | '.join(cells)} |")
                    first = ""
        errors = [cell(tasks["motion_to_text"]["metrics"], "joint_error_mm") for tasks in results]
        rows.append(f"| | reconstruction: joint error, mm ↓ | {' | '.join(errors)} |")
    return "\n".join(rows)


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
            "## Real motion, templated captions",
            "",
            "2,479 clips of the Bandai-Namco Research set; `test_unseen` holds pairs of action and style that",
            f"training never sees. {minutes:.0f} minutes of training, CPU threads: "
            f"{result['environment']['threads']}; `{result['command']}`, [results.json]({REAL}).",
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
            "## Embedded synthetic motion",
            "",
            f"Motions held out; `make quickstart`, [results.json]({QUICKSTART}).",
            "",
            "| actions right | side right | joint error, mm | codes used | perplexity |",
            "|---|---|---|---|---|",
            f"| {percent(metrics['action'])} | {percent(metrics['side'])} | {metrics['joint_error_mm']:.1f} | "
            f"{metrics['codes_used']} | {metrics['perplexity']:.0f} |",
        ]
    )


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
            "## The same models by `geomotiongpt evaluate`",
            "",
            f"Convention `{protocol['convention']}`, references `{protocol['reference_policy']}`, pools of "
            f"{protocol['pool_size']}, {protocol['replications']} replications, mean ± 95% interval. Each data set",
            "has an evaluator of its own, so that columns of different data cannot be compared; the captions of both",
            f"are templates. Results: {links}.",
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
        ("motion_to_text_r_at_1", "R@1, motion to text ↑"),
        ("motion_to_text_r_at_3", "R@3, motion to text ↑"),
        ("label_aware_motion_to_text_r_at_1", "R@1, motion to text, equal meanings right ↑"),
        ("mm_dist", "MM-Dist ↓"),
        ("diversity", "Diversity"),
    ):
        cells = [
            f"{score(metrics[key])} ({score(metrics[f'ground_truth_{key}'])})" if key in metrics else ""
            for metrics in results.values()
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    for key, name in (
        *MULTIMODALITIES.items(),
        ("fid", "FID ↓"),
        ("fid_over_floor", "FID of half of them, over that between two halves of the real ones ↓"),
    ):
        cells = [cell(metrics, key) for metrics in results.values()]
        if any(cells):
            rows.append(f"| {name} | {' | '.join(cells)} |")
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
            "## Motions made, by `geomotiongpt evaluate --task ...`",
            "",
            "Of the first caption of each motion, at the length of the data unless free; in brackets the same of the",
            "real motions. The evaluator of the embedded data is not that of the table above; judges are trained",
            f"apart, behind motion tokenizers of their own. Recipes and results are in [{TINY_BOTH}]({TINY_BOTH}) and",
            f"[{REAL_BOTH}]({REAL_BOTH}).",
            "",
            *rows,
            "",
            "A quarter of each motion given, at the start or at both ends; its codes are kept in all of them. In "
            "brackets the same",
            "of a pose that is held, or of poses on a line between the ends; of seams, that of the real motions:",
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
    named = [folder for family in ("MotionGPT3", "LLaMo") for folder in FAMILIES[family].values()]
    folders = ", ".join(f"[{folder}]({folder})" for folder in named)
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
            "## Discrete and continuous motion: the same motions, evaluator and judge",
            "",
            "One run each, the continuous ones trained longer; motions at the length of the data; in brackets the",
            f"same of the real motions. Results are in the folders of the recipes, {folders}.",
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
    """A table of one population."""
    check_ruler(population, list(results.values()))
    rows = [f"| {population} | {' | '.join(results)} |", f"|---|{'---|' * len(results)}"]
    sizes = [f"{tasks['text_to_motion']['model']['parameters'] / 1e6:.1f}" for tasks in results.values()]
    rows.append(f"| parameters, millions | {' | '.join(sizes)} |")
    for task, metrics in FAMILY_METRICS.items():
        for key, name in metrics.items():
            cells = []
            for tasks in results.values():
                cells.append(cell_with_truth(tasks[task]["metrics"] if task in tasks else {}, key))
            if any(cells):
                rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def check_ruler(population: str, results: list[dict[str, dict]]) -> None:
    """All were measured by the same networks on the same motions."""
    for task, key in (("text_to_motion", "judge_sha256"), ("motion_to_text", "evaluator_sha256")):
        protocols = [tasks[task]["protocol"] for tasks in results]
        for name in (key, "population"):
            assert all(protocol[name] == protocols[0][name] for protocol in protocols), (population, task, name)


def cell_with_truth(values: dict, key: str) -> str:
    """A metric, in brackets the same of the real motions where that was measured."""
    truth = f"ground_truth_{key.removeprefix('reconstruction_')}"
    told = f" ({score(values[truth])})" if truth in values else ""
    return cell(values, key) + told if key in values else ""
