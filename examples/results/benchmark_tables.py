"""Tables of benchmarks: what a design costs or buys, what metrics see, how fast things are."""

from committed import load, score

PROBES = "hub_configs/geomotiongpt-real-motion/probes.json"
SYSTEMS = "examples/benchmarks/captioning_systems.json"
LOSSES = "examples/benchmarks/tokenizer_losses.json"
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
RENDERING = "examples/benchmarks/rendering.json"
READING = "examples/benchmarks/motion_import.json"
IMPORTED = "examples/benchmarks/import_table.json"


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
            "## Is language forgotten?",
            "",
            f"LLaMo on the embedded data, its stages and a control of a single stream; {result['data']['name']}; "
            f"`{result['command']}`, [JSON]({FORGETTING}).",
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
            "## LLaMo's streaming",
            "",
            f"Random weights, 272 features at 30 frames a second, {environment['device']}, threads: "
            f"{environment['threads']}, time {result['protocol']['time']}; `{result['command']}`,",
            f"[JSON]({STREAMING}).",
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
            "## Two streams against one",
            "",
            f"{result['data']['name']}, split {result['data']['split']}, text {protocol['text']}, one seed; "
            f"`{result['command']}`, [JSON]({STREAMS}).",
            "",
            f"![Loss and actions named right over steps]({STREAMS.replace('.json', '.png')})",
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
            "## A caption that means two things",
            "",
            f"Left / right / something else, as a judge sees {result['protocol']['samples']} motions of each caption. "
            "What a squared",
            "error asks for is one latent, the mean of the training motions, here at as many lengths; "
            f"`{result['command']}`, [JSON]({TWO_MODES}).",
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
        "## Every geometric switch for a short run",
        "",
        f"Embedded data, {result['protocol']['steps']} steps, {result['protocol']['steps_after_a_swap']} after a "
        "swap, one seed: that each trains, not which is best,",
        "for which there is [a study](examples/studies/geometry/README.md). Lost: ||G - G_0||_F^2 against the",
        f"codebook at GPT-2's width, after a swap against the trained model; `{result['command']}`,",
        f"[JSON]({SWITCHES}).",
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
        ("label_aware_motion_to_text_r_at_1", "R@1, motion to text, label-aware"),
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
            "## What the metrics see",
            "",
            f"Real motion, `test`; split-half floor of FID {score(metrics['ground_truth']['fid_floor'])}; "
            f"`{result['command']}`, [JSON]({PROBES}).",
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
            "## Published captions of five systems, one ruler",
            "",
            f"HumanML3D test, {cases} cases, `{result['protocol']['convention']}`, {result['protocol']['track']} "
            f"references, `{result['protocol']['reference_policy']}`; `{result['command']}`, [JSON]({SYSTEMS}).",
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
            "## Losses of the motion tokenizer side by side",
            "",
            f"Real motion, {result['protocol']['steps']} steps, {len(seeds)} seeds, mean ± 95% interval; "
            f"`{result['command']}`, [JSON]({LOSSES}).",
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
            "## Motion files as found in the wild",
            "",
            f"Imported without a mapping, captions of the real-motion model; `{result['command']}`,",
            f"[JSON]({IMPORTED}). Left is left in {sided} of {len(heights)} files, {warned} have warnings;",
            f"retargeted bodies are {heights[0]:.2f} to {heights[-1]:.2f} m high. `cmu_007_12` is a walk as fast as",
            "the training set runs; `cmu_002_03` is a run whose conversion has fixed the height of the pelvis.",
            "",
            *rows,
        ]
    )


def speed_table() -> str:
    """Ratios."""
    names = (STEP, TOKENIZING, DATA_SPEED, ROUTED, RENDERING, READING)
    step, tokenizing, data, routed, drawing, reading = (load(name)["metrics"] for name in names)
    gpt2, small = (
        {key.removeprefix(f"{size}_"): value for key, value in load(DECODING)["metrics"].items()}
        for size in ("gpt2", "small")
    )
    return "\n".join(
        [
            "## Speed",
            "",
            f"Both sides in one run; JSON: [training step]({STEP}), [tokenizing]({TOKENIZING}), "
            f"[features]({DATA_SPEED}), [decoding]({DECODING}), [routed branches]({ROUTED}), "
            f"[drawing]({RENDERING}), [reading]({READING}).",
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
            f"| a GIF drawn by matplotlib against ours | {drawing['gif_over_matplotlib']:.0f} |",
            f"| a BVH file read and placed number by number against ours | {reading['read_and_place_speedup']:.0f} |",
        ]
    )
