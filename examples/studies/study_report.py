"""The report of studies, from their rows alone: tables, figures and the text around them.

`report.md` in the folder is the text; what stands in double braces there is filled in from the rows, so that no figure
is typed by hand:

    {{table STUDY QUESTION KIND}}         cells of a question; KIND is one of KINDS
    {{value STUDY CELL METRIC}}           mean and 95 % interval over the seeds
    {{range STUDY CELL METRIC}}           the least and the greatest of the seeds
    {{difference STUDY CELL METRIC}}      mean and 95 % interval of the differences from the default, paired by seed
    {{change STUDY CELL METRIC}}          the same in a sentence, without bold
    {{noise STUDY}}                       what difference can be told from noise, with three and with five seeds
    {{full STUDY METRIC}}                 a metric of the families at full size
    {{full_size STUDY}}                   the families at full size, one seed, from the results in hub_configs
    {{effects STUDY CELL METRIC METRIC}}  differences in a sentence, and whether they stand
    {{verdict STUDY CELL METRIC PERCENT}} a difference in percent, and what it says of an effect that others found
    {{plot NAME}}                         a figure of `study_plots`
    {{runs STUDY}}  {{missing STUDY}}  {{hours STUDY}}  {{longest STUDY}}  {{motions STUDY}}
    {{comparisons STUDY}}  {{evaluators STUDY}}  {{command STUDY CELL}}
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from study_plots import PLOTS
from study_rows import COMPARED, METRICS, Measured, interval, is_clear, t_quantile
from study_runs import ROOT, Cell, command_of

KINDS = {
    "codes": (
        *("joint_error_mm", "mpjpe_mm", "reconstruction_fid", "perplexity", "dead_codes", "gram_error_excess"),
        *("gram_error_excess_before", "language_model_gram_error_excess"),
    ),
    "captions": (
        *("bleu_4", "rouge_l", "cider", "action", "side", "style", "test_unseen_action", "test_unseen_style"),
        *("motion_to_text_r_at_3", "text_to_motion_r_at_3", "steps_to_loss"),
    ),
    "motions": (
        *("generated_fid", "generated_fid_over_floor", "generated_motion_to_text_r_at_3"),
        *("generated_text_to_motion_r_at_3", "generated_mm_dist", "generated_jerk_m_per_s3"),
    ),
    "continuity": (
        *(
            "training_seconds",
            "joint_error_mm",
            "reconstruction_fid",
            "reconstruction_jerk_m_per_s3",
        ),
        *("generated_jerk_m_per_s3", "bleu_4", "cider", "action", "style", "motion_to_text_r_at_3"),
        *("generated_fid", "generated_text_to_motion_r_at_3"),
    ),
    "differences": COMPARED,
}
# What a metric is for the data themselves.
OF_THE_DATA = {
    "reconstruction_jerk_m_per_s3": "ground_truth_jerk_m_per_s3",
    "generated_jerk_m_per_s3": "ground_truth_jerk_m_per_s3",
    **{
        f"{prefix}{direction}_r_at_3": f"ground_truth_{direction}_r_at_3"
        for prefix in ("", "generated_")
        for direction in ("motion_to_text", "text_to_motion")
    },
}
FAMILIES = {
    "GeoMotionGPT": "geomotiongpt-real-motion-generation",
    "MotionGPT3": "motiongpt3-real-motion",
    "LLaMo": "llamo-real-motion",
}
FULL_SIZE = {
    "motion_to_text": (
        *("joint_error_mm", "reconstruction_fid", "ground_truth_jerk_m_per_s3", "reconstruction_jerk_m_per_s3"),
        *("bleu_4", "cider", "action", "style"),
    ),
    "text_to_motion": (
        *("generated_fid", "generated_fid_over_floor", "generated_text_to_motion_r_at_3", "generated_jerk_m_per_s3"),
    ),
}

_NOTE = (
    "<!-- Made of report.md and the rows by `python examples/geometry_study.py --report examples/studies/geometry`; "
    "edit report.md. -->"
)


def write_study_report(folder: str | Path) -> list[Path]:
    """Makes README.md and the figures of a folder of studies from their rows and `report.md`.

    Raises:
        FileNotFoundError: if there is no `report.md`.
        ValueError: for something in braces that cannot be filled in.
    """
    folder = Path(folder)
    if not (folder / "report.md").is_file():
        raise FileNotFoundError(f"{folder / 'report.md'}: no such text; a report is made from it and the rows.")
    studies = {path.stem: Measured.read(path) for path in sorted(folder.glob("*.yaml"))}
    written: list[Path] = []

    def fill(match: re.Match) -> str:
        kind, *names = match.group(1).split()
        try:
            if kind == "plot":
                written.append(PLOTS[names[0]](studies, folder / f"{names[0]}.png"))
                return f"![{names[0].replace('_', ' ')}]({names[0]}.png)"
            return _FILLED[kind](studies[names[0]], *names[1:])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{folder / 'report.md'}: cannot fill in {match.group(0)} ({error}).") from error

    text = re.sub(r"\{\{(.+?)\}\}", fill, (folder / "report.md").read_text(encoding="utf-8"))
    target = folder / "README.md"
    target.write_text(f"{_NOTE}\n\n{text}", encoding="utf-8")
    return [target, *written]


def compare_with_rows(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """A repeated run beside the committed row of its seed, and what one more seed of its cell would lie between."""
    same = [other for other in rows if other["model"]["cell"] == row["model"]["cell"]]
    committed = next((other for other in same if other["model"]["seed"] == row["model"]["seed"]), None)
    lines = [
        f"{row['model']['cell']}, seed {row['model']['seed']}: again, the committed row, and where 95 % of further "
        f"seeds would lie, by the {len(same)} there are"
    ]
    evaluator = row["protocol"]["evaluator_sha256"]
    if committed is not None and committed["protocol"]["evaluator_sha256"] != evaluator:
        lines.append("  (trained here, the evaluator network is another one to the bit: FID and retrieval may differ)")
    inside = equal = judged = 0
    for name, value in row["metrics"].items():
        values = [other["metrics"][name] for other in same if other["metrics"].get(name) is not None]
        mean, width = interval(values) if values else (math.nan, math.nan)
        width *= math.sqrt(len(values) + 1)  # of one more value, not of the mean
        before = None if committed is None else committed["metrics"].get(name)
        told = "" if math.isnan(width) or value is None else "inside" if abs(value - mean) <= width else "outside"
        inside, judged, equal = inside + (told == "inside"), judged + bool(told), equal + (value == before)
        lines.append(f"  {name:45} {_plain(value):>10} {_plain(before):>10}   {mean:.5g} ± {width:.2g}  {told}")
    lines.append(f"{equal} of {len(row['metrics'])} figures are the committed ones; {inside} of {judged} lie inside.")
    return "\n".join(lines)


def table(measured: Measured, question: str, kind: str) -> str:
    """Markdown: the cells of a question, and the metrics of a kind that any of them has."""
    cells = measured.cells(question)
    names = [name for name in KINDS[kind] if any(measured.values(cell, name) for cell in cells)]
    show = difference if kind == "differences" else value
    if kind == "differences":
        cells = [cell for cell in cells if cell is not measured.default]
    if not cells or not names:
        return "*No run of this question has ended yet.*"
    lines = [f"| | {' | '.join(METRICS[name].label for name in names)} |", f"|---|{'---|' * len(names)}"]
    for cell in cells:
        title, base = f"`{cell.name}` {cell.title} ({measured.reached(cell)})", measured.base(cell)
        if kind == "differences" and base is not measured.default:
            title += f" – against `{base.name}`"
        shown = [
            "same"
            if kind != "differences" and measured.is_same(cell, name) and base in cells
            else show(measured, cell.name, name)
            for name in names
        ]
        lines.append(f"| {title} | {' | '.join(shown)} |")
    if kind != "differences" and (told := [_of_the_data(measured, name) for name in names]).count("") < len(names):
        lines.append(f"| the data themselves | {' | '.join(told)} |")
    return "\n".join(lines)


def _of_the_data(measured: Measured, name: str) -> str:
    """A metric of the motions and captions that the others are measured against; empty where there is none."""
    rows = [row for (cell, _), row in measured.rows.items() if cell == measured.default.name]
    values = [row["metrics"].get(OF_THE_DATA.get(name, "")) for row in rows]
    known, metric = [value for value in values if value is not None], METRICS[name]
    return f"{metric.factor * sum(known) / len(known):.{metric.decimals}f}" if known else ""


def value(measured: Measured, cell: str, name: str) -> str:
    """Mean ± interval over the seeds; how many of them where it is not all."""
    chosen = measured.study.cell(cell)
    values = list(measured.values(chosen, name).values())
    shown = _show(values, name, signed=False)
    return shown if len(values) in (0, measured.reached(chosen)) else f"{shown} ({len(values)} seeds)"


def extent(measured: Measured, cell: str, name: str) -> str:
    """The least and the greatest figure of the seeds."""
    values, metric = measured.values(measured.study.cell(cell), name).values(), METRICS[name]
    if not values:
        return "–"
    return " to ".join(f"{metric.factor * end:.{metric.decimals}f}" for end in (min(values), max(values)))


def changes(measured: Measured, cell: str, name: str) -> str:
    """The least and the greatest difference of the seeds from what the cell stands against."""
    values, metric = measured.differences(measured.study.cell(cell), name), METRICS[name]
    if not values:
        return "–"
    return " to ".join(f"{metric.factor * end:+.{metric.decimals}f}" for end in (min(values), max(values)))


def between(measured: Measured, cell: str, other: str, *names: str) -> str:
    """A cell less another than that it stands against, paired by seed: not tested, so never with a dagger."""
    shown = []
    for name in names:
        first, second = (measured.values(measured.study.cell(one), name) for one in (cell, other))
        paired = [first[seed] - second[seed] for seed in first if seed in second]
        label, _, unit = METRICS[name].label.partition(",")
        shown.append(f"{label} {_show(paired, name, signed=True)}{unit}")
    return "; ".join(shown)


def difference(measured: Measured, cell: str, name: str, *, is_plain: bool = False) -> str:
    """Mean ± interval of the differences from the cell that it stands against, paired by seed.

    Bold where the interval leaves out 0, unless plain; with a dagger where it also stands among all differences.
    """
    chosen = measured.study.cell(cell)
    if measured.is_same(chosen, name):
        return "same"
    values = measured.differences(chosen, name)
    shown = _show(values, name, signed=True)
    if measured.stands(chosen, name):
        shown += " †"
    is_bold = not is_plain and measured.is_complete(chosen, name) and is_clear(values)
    return f"**{shown}**" if is_bold else shown


def effects(measured: Measured, cell: str, *names: str) -> str:
    """Differences in a sentence, and which of them stand: those with a dagger in tables."""
    chosen = measured.study.cell(cell)
    base = measured.base(chosen)
    labels = {name: METRICS[name].label.partition(",")[0] for name in names}
    shown = "; ".join(
        f"{labels[name]} {difference(measured, cell, name, is_plain=True)}{METRICS[name].label.partition(',')[2]}"
        for name in names
    )
    if base is not measured.default:
        shown += f", against `{base.name}`"
    if not chosen.is_counted:
        return shown
    if not any(measured.error(chosen, name) for name in names):
        return f"{shown} (too few seeds yet to tell)"
    return shown if any(measured.stands(chosen, name) for name in names) else f"{shown} (none has †)"


def percent(measured: Measured, cell: str, name: str) -> str:
    """A difference in percent of what the cell stands against, with its 95 % interval as it is tested."""
    found = _percent(measured, measured.study.cell(cell), name)
    return "–" if found is None else f"{found[0]:+.1f} ± {found[1]:.1f} %"


def _percent(measured: Measured, cell: Cell, name: str) -> tuple[float, float] | None:
    error, base = measured.error(cell, name), measured.values(measured.base(cell), name)
    if error is None:
        return None
    values = measured.differences(cell, name)
    paired = [base[seed] for seed in measured.values(cell, name) if seed in base]
    whole = sum(paired) / len(paired)
    return 100 * sum(values) / len(values) / whole, 100 * error[0] * t_quantile(error[1]) / abs(whole)


def verdict(measured: Measured, cell: str, name: str, percents: str) -> str:
    """`percent`, and a verdict on an effect of so many percent that others found.

    Whether the difference stands, and whether its interval has theirs in it.
    """
    chosen, claimed = measured.study.cell(cell), float(percents)
    found = _percent(measured, chosen, name)
    if found is None:
        return "– | too few seeds yet"
    (mean, width), stands = found, measured.stands(chosen, name)
    if abs(mean - claimed) <= width:
        told = "seen" if stands else "cannot tell"
    elif stands and mean * claimed > 0:
        told = "seen, smaller" if abs(mean) < abs(claimed) else "seen, larger"
    else:
        told = "not seen"
    return f"{percent(measured, cell, name)} | {told}"


def comparisons(measured: Measured) -> str:
    """How many differences are marked."""
    tested = [(measured.study.cell(cell), name) for cell, name in measured.probabilities]
    bold = sum(is_clear(measured.differences(cell, name)) for cell, name in tested)
    found = sum(measured.stands(cell, name) for cell, name in tested)
    chance = f"by chance about {len(tested) / 20:.0f}, were they independent"
    return f"of {len(tested)} differences {bold} are bold ({chance}), {found} have †"


def noise(measured: Measured) -> str:
    """Markdown: for each metric its value, and the least difference that three and five seeds can tell."""
    kinds = [
        (is_shared, seeds, level)
        for is_shared in (False, True)
        for seeds, level in ((3, 0.05), (5, 0.05), (3, measured.level))
    ]
    heads = [
        f"{'one tokenizer' if is_shared else 'own tokenizers'}: {seeds} seeds{', †' if level != 0.05 else ''}"
        for is_shared, seeds, level in kinds
    ]
    lines = [f"| | the default | {' | '.join(heads)} |", f"|---|---|{'---|' * len(heads)}"]
    for name in COMPARED:
        widths = [measured.resolution(name, *kind) for kind in kinds]
        metric = METRICS[name]
        shown = ["–" if width is None else f"{metric.factor * width:.{max(metric.decimals, 1)}f}" for width in widths]
        lines.append(f"| {metric.label} | {value(measured, measured.default.name, name)} | {' | '.join(shown)} |")
    return "\n".join(lines)


def evaluators(measured: Measured) -> str:
    """Whether one evaluator network measured all rows."""
    others = sum(row["protocol"].get("evaluator_sha256") != measured.evaluator for row in measured.rows.values())
    if not others:
        return "by one evaluator network"
    return f"by one evaluator network, but for {others} rows of another, whose FID and retrieval are left out"


def full_size(measured: Measured) -> str:
    """Markdown: the three families trained at full size on real motion, from the committed results of each."""
    names = [name for group in FULL_SIZE.values() for name in group]
    lines = [f"| | {' | '.join(METRICS[name].label for name in names)} |", f"|---|{'---|' * len(names)}"]
    for title in FAMILIES:
        lines.append(f"| {title} | {' | '.join(_full(title, name) for name in names)} |")
    results = [_full_result(title, file) for title in FAMILIES for file in FULL_SIZE]
    if {result["protocol"]["evaluator_sha256"] for result in results} != {measured.evaluator}:
        lines += [
            "",
            "Their evaluator network is not that of the rows above: FID and R@3 cannot be compared with those.",
        ]
    return "\n".join(lines)


def full(_: Measured, name: str) -> str:
    """A metric of the three families at full size, as `full_size`."""
    return ", ".join(f"{_full(title, name)} ({title})" for title in FAMILIES)


def _full(family: str, name: str) -> str:
    (file,) = (file for file, group in FULL_SIZE.items() if name in group)
    found, metric = _full_result(family, file)["metrics"][name.removeprefix("generated_")], METRICS[name]
    if not isinstance(found, Mapping):
        return f"{metric.factor * found:.{metric.decimals}f}"
    mean, width = metric.factor * found["mean"], metric.factor * found["ci95"]
    return f"{mean:.{metric.decimals}f} ± {width:.{metric.decimals}f}"


def _full_result(family: str, file: str) -> dict[str, Any]:
    return json.loads((ROOT / "hub_configs" / FAMILIES[family] / f"{file}.json").read_text(encoding="utf-8"))


def _show(values: Sequence[float], name: str, *, signed: bool) -> str:
    metric = METRICS[name]
    if not values:
        return "–"
    mean, width = (metric.factor * part for part in interval(values))
    shown = f"{mean:{'+' if signed else ''}.{metric.decimals}f}"
    return shown if math.isnan(width) else f"{shown} ± {width:.{metric.decimals}f}"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.5g}"


def _missing(measured: Measured) -> str:
    if not measured.missing:
        return "none"
    seeds: dict[str, list[str]] = {}
    for cell, seed in measured.missing:
        seeds.setdefault(cell.name, []).append(str(seed))
    return ", ".join(f"`{name}` (seeds {', '.join(numbers)})" for name, numbers in seeds.items())


def _hours(measured: Measured) -> str:
    stages: dict[str, float] = {}
    measuring = 0.0
    for row in measured.rows.values():
        seconds = row["model"]["seconds"]
        stages |= {key: seconds[name] for name, key in row["model"]["stages"].items()}
        measuring += seconds["measuring"]
    return f"{(sum(stages.values()) + measuring) / 3600:.1f}"


def _longest(measured: Measured) -> str:
    """Minutes of a CPU that the longest run takes."""
    return f"{max((sum(row['model']['seconds'].values()) for row in measured.rows.values()), default=0) / 60:.1f}"


def _motions(measured: Measured) -> str:
    counts = {row["metrics"].get("r_precision_pairs") for row in measured.rows.values()} - {None}
    return ", ".join(f"{count:.0f}" for count in sorted(counts)) or "–"


def _command(measured: Measured, cell: str) -> str:
    return f"`{command_of(measured.study, measured.study.cell(cell), 0)}`"


_FILLED = {
    "table": table,
    "value": value,
    "difference": difference,
    "range": extent,
    "changes": changes,
    "between": between,
    "change": partial(difference, is_plain=True),
    "effects": effects,
    "runs": lambda measured: f"{len(measured.rows)} of {len(measured.study.runs)}",
    "missing": _missing,
    "hours": _hours,
    "longest": _longest,
    "motions": _motions,
    "comparisons": comparisons,
    "evaluators": evaluators,
    "percent": percent,
    "verdict": verdict,
    "noise": noise,
    "full_size": full_size,
    "full": full,
    "command": _command,
}
