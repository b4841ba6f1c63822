"""What the command owes a terminal: an answer at once, examples that work, completions, colour only where seen."""

import argparse
import builtins
import os
import pty
import re
import shlex
import shutil
import socket
import subprocess
import sys
import termios
from functools import partial
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from safetensors.numpy import save_file
from transformers import AutoConfig

import geomotiongpt
from geomotiongpt.cli import _parser, main
from geomotiongpt.console import EXTRAS, SHELLS

ROOT = Path(__file__).parents[1]
COMMAND = [
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'geomotiongpt'; import geomotiongpt.cli as c; sys.exit(c.main())",
]
VERBS = next(iter(_parser()._subparsers._group_actions)).choices


def run(*argv: str, **options) -> subprocess.CompletedProcess:
    """The command, as installed, in a process of its own."""
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run([*COMMAND, *argv], env=environment, text=True, capture_output=True, **options)


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], ["evaluate", "--help"], ["caption"], ["--print-completion", "zsh"]]
)
def test_what_needs_no_model_is_answered_without_torch(argv):
    code = (
        "import sys; sys.argv = ['/usr/bin/geomotiongpt', *sys.argv[1:]]; import geomotiongpt.cli as c\n"
        "try:\n    c.main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'datasets'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("program", ["script.py", "geomotiongpt"])
def test_the_auto_classes_know_the_models(program):
    """After `import geomotiongpt` anywhere but in the command, and in the command before a verb runs."""
    use = (
        "from transformers import AutoConfig, AutoModel, AutoProcessor\n"
        "from transformers.pipelines import PIPELINE_REGISTRY\n"
        "def run(_):\n"
        "    config = AutoConfig.for_model('vq_motion_tokenizer')\n"
        "    assert type(config) in AutoModel._model_mapping\n"
        "    assert type(AutoConfig.for_model('llamo')).__name__ == 'LLaMoConfig'\n"
        "    assert 'motion-to-text' in PIPELINE_REGISTRY.get_supported_tasks()\n"
        "    print('known')\n"
    )
    call = "run(None)" if program == "script.py" else (
        "import argparse\nfrom geomotiongpt.console import run_verb\n"
        "run_verb(lambda: argparse.Namespace(verb='x', run=run, when_stopped=None))"
    )  # fmt: skip
    code = f"import sys; sys.argv[0] = '/usr/bin/{program}'\nimport geomotiongpt\n{use}{call}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "known\n", done.stderr


def test_public_names_are_those_of_dir_and_of_all():
    assert set(geomotiongpt.__all__) <= set(dir(geomotiongpt))
    for name in geomotiongpt.__all__:
        assert getattr(geomotiongpt, name).__name__ == name


def examples(verb: str) -> list[list[str]]:
    """The command lines that a help shows, as words."""
    text = VERBS[verb].epilog.removeprefix("example: ").replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines()]


@pytest.mark.parametrize("verb", VERBS)
def test_every_example_is_a_command_line(verb):
    assert examples(verb)
    for program, *argv in examples(verb):
        assert program == "geomotiongpt" and argv[0] == verb
        assert callable(_parser().parse_args(argv).run)


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_what_every_option_is_and_its_default(verb, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    text = VERBS[verb].format_help()
    for action in VERBS[verb]._actions:
        assert action.help, f"{verb} {action.dest}"
        if action.option_strings:
            (entry,) = re.findall(
                rf"^  (?:-\w(?: \S+)?, )?{action.option_strings[-1]}\b.*\n(?:    .*\n)*", text, re.MULTILINE
            )
            if action.default not in (None, False, argparse.SUPPRESS):
                assert entry.count("(default: ") == 1, entry
            if action.nargs != 0 and action.choices is None and action.type is not None:
                assert action.dest.upper() not in entry.split(), "PATH, N or X say more"
    assert VERBS[verb].description[0].islower() and "->" not in VERBS[verb].description


def test_the_help_of_the_quickstart_knows_how_many_motions_it_makes():
    from geomotiongpt.quickstart import NUM_MOTIONS

    assert f"motions to make (default: {NUM_MOTIONS})" in VERBS["quickstart"].format_help()


@pytest.mark.parametrize("name", ["caption", "generate"])
def test_short_examples_say_how_they_are_used(name):
    path = ROOT / "examples" / f"{name}.py"
    told = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, check=True).stdout
    assert f"usage: {name}.py [-h] model" in told


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_read_what_makes_them_complete(shell):
    script = run("--print-completion", shell, check=True).stdout
    assert all(verb in script for verb in VERBS) and "print-completion" in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: its script was made, and not read")
    subprocess.run([shell, "-n"], input=script, text=True, check=True)


def completed(line: str, folder: Path) -> list[str]:
    """What bash offers for the last word of a line."""
    script = run("--print-completion", "bash", check=True).stdout
    words = line.split(" ")
    ask = (
        f"{script}\nCOMP_WORDS=({shlex.join(words[:-1])} {shlex.quote(words[-1])}); COMP_CWORD={len(words) - 1}\n"
        f'"$(complete -p geomotiongpt | sed "s/.*-F \\([^ ]*\\).*/\\1/")" geomotiongpt {shlex.quote(words[-1])}\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash"], input=ask, text=True, capture_output=True, cwd=folder, check=True)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_verbs_options_choices_and_files(tmp_path):
    (tmp_path / "walk.npy").touch()
    assert completed("geomotiongpt tr", tmp_path) == ["train-tokenizer", "train", "train-evaluator"]
    assert completed("geomotiongpt evaluate --ref", tmp_path) == ["--reference-policy", "--references"]
    assert completed("geomotiongpt evaluate --lengths ", tmp_path) == ["data", "stated", "free"]
    assert completed("geomotiongpt generate MODEL --motion wa", tmp_path) == ["walk.npy"]


def on_a_terminal(*argv: str, **environment: str) -> str:
    """What a program writes to standard error where that is a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with subprocess.Popen(argv, stderr=theirs, stdout=subprocess.DEVNULL, env={**os.environ, **environment}):
        os.close(theirs)
        text = b""
        try:
            while piece := os.read(ours, 4096):
                text += piece
        except OSError:  # how Linux says that the other end is closed
            pass
    os.close(ours)
    return text.decode()


def test_colour_is_for_terminals_whose_users_want_it():
    code = (
        "import sys; sys.argv = ['geomotiongpt']; from geomotiongpt.console import _red; sys.stderr.write(_red('x'))"
    )
    colours = {"TERM": "xterm", "NO_COLOR": ""}
    assert on_a_terminal(sys.executable, "-c", code, **colours) == "\033[1;31mx\033[0m"
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert on_a_terminal(sys.executable, "-c", code, **{**colours, **environment}) == "x"


@pytest.mark.slow
def test_an_error_is_red_on_a_terminal_and_plain_elsewhere(tmp_path):
    bad = ("render", str(tmp_path / "gone.npy"), "-o", str(tmp_path / "x.bvh"))
    colours = {"TERM": "xterm", "NO_COLOR": ""}
    assert "geomotiongpt render: \033[1;31merror:\033[0m " in on_a_terminal(*COMMAND, *bad, **colours)
    piped = run(*bad, env=colours)
    assert piped.returncode == 2 and piped.stdout == ""
    assert piped.stderr == f"geomotiongpt render: error: {tmp_path / 'gone.npy'}: no such motion file.\n"


@pytest.mark.slow
def test_progress_is_for_terminals(tiny_model_folder, clips, tmp_path):
    files = [str(tmp_path / f"{index}.npy") for index in range(3)]
    for path in files:
        np.save(path, clips[0])
    argv = ("caption", str(tiny_model_folder), *files, "--batch-size", "1")
    assert "captioning" in on_a_terminal(*COMMAND, *argv)
    assert run(*argv, check=True).stderr == ""


@pytest.mark.parametrize(
    "argv",
    [
        ["caption", "MODEL", "CLIP", "--segments", "--output", "PLACE"],
        ["generate", "MODEL", "a person walks.", "--output", "PLACE"],
        ["evaluate", "MODEL", "--data", "DATA", "--output", "PLACE"],
        ["render", "CLIP", "-o", "PLACE.gif"],
        ["convert", "tokenizer.pth", "PLACE"],
    ],
    ids=lambda argv: argv[0],
)
def test_a_place_that_cannot_be_written_is_named_before_anything_is_loaded(argv, clips, tmp_path, capsys):
    """The model and the data are not there at all, which would be the next thing to say."""
    np.save(tmp_path / "clip.npy", clips[0])
    (tmp_path / "file").touch()
    places = {"CLIP": tmp_path / "clip.npy", "MODEL": tmp_path / "no/such/model", "DATA": tmp_path / "no/such/data"}
    for name, place in {**places, "PLACE": tmp_path / "file" / "out"}.items():
        argv = [word.replace(name, str(place)) for word in argv]
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1
    assert f"Not a directory: '{tmp_path / 'file' / 'out'}" in captured.err


def extras() -> dict[str, list[str]]:
    """Of setup.py: extra -> distributions."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    found = re.search(r"extras_require=(\{.*?\n    \})", text, re.DOTALL)
    assert found is not None
    return {name: [re.split(r"[>=<]", entry)[0] for entry in entries] for name, entries in eval(found[1]).items()}


def test_every_extra_for_users_has_its_modules_in_the_table():
    assert set(EXTRAS.values()) == set(extras()) - {"dev"}
    for module, extra in EXTRAS.items():
        assert module.replace("_", "-") in extras()[extra]


@pytest.mark.parametrize("module", EXTRAS)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(module, monkeypatch, capsys):
    real_import = builtins.__import__

    def no_such_module(name, *args, **kwargs):
        if name.split(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_such_module)
    monkeypatch.setattr("geomotiongpt.cli._push", lambda _: __import__(f"{module}.inner"))
    assert main(["push", "folder", "USER/NAME"]) == 2
    line = f"geomotiongpt push: error: {module} is not installed: pip install 'geomotiongpt[{EXTRAS[module]}]'\n"
    assert capsys.readouterr().err == line


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch, capsys, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    (tmp_path / "config.json").write_text("{}")
    save_file({}, tmp_path / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.HfApi", partial(huggingface_hub.HfApi, endpoint=address, token="hf_none"))
    assert main(["push", str(tmp_path), "USER/NAME"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("geomotiongpt push: error: the Hub does not answer (") and "refused" in line


def test_an_error_of_ours_is_not_hidden(monkeypatch):
    monkeypatch.setattr("geomotiongpt.cli._push", lambda _: {}["a key"])
    with pytest.raises(KeyError):
        main(["push", "folder", "USER/NAME"])


def test_committed_models_are_found_by_the_auto_classes():
    assert AutoConfig.from_pretrained(ROOT / "hub_configs/llamo-tiny").model_type == "llamo"
