"""The command answers quickly, and ends in one line where the user can mend something."""

import re
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
from label2label.checkpoints import default_checkpoint
from label2label.cli import COMMANDS, EXTRAS, build_parser, main
from label2label.errors import UserError
from label2label.files import temporary_folder

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "datasets", "cv2", "numpy", "matplotlib", "PIL")


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys, runpy\n"
        "sys.argv = ['label2label', '--help']\n"
        "try: runpy.run_module('label2label', run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        f"print('heavy:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    run_python(code)  # so that the next one finds compiled files
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = run_python(code).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "heavy: []" in out
    assert all(command in out for command in COMMANDS)
    # Processor time: on a busy machine the clock on the wall measures the others.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    usage, description, *_ = capsys.readouterr().out.split("\n\n")
    assert f"label2label {command}" in usage
    assert description.endswith(".")
    assert description[0].isupper()


def test_help_names_the_shipped_recipes_and_the_default_model(capsys):
    for command, text in (("train", "merged, own-attributes, tiny"), ("predict", "(default)")):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert text in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["predict"],
        ["predict", "a.jpg", "--threshold", "2"],
        ["predict", "a.jpg", "--threshold", "nan"],
        ["predict", "a.jpg", "--batch-size", "0"],
        ["train"],
        ["evaluate"],
        ["audit", "--data", "d", "--output", "a.html"],
        ["calibrate", "--data", "d"],
        ["convert", "a.pt"],
    ],
)
def test_wrong_arguments_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_commands_get_the_arguments_that_they_read():
    parser = build_parser()
    args = parser.parse_args(["train", "--output", "o", "--set", "epochs=2", "--set", "seed=1"])
    assert (args.config, args.data, args.resume) == (None, None, False)
    assert args.set == ["epochs=2", "seed=1"]
    args = parser.parse_args(
        ["evaluate", "--data", "d", "--group", "race", "--group", "gender", "--output", "f.json"]
    )
    assert (args.split, args.batch_size, args.model) == ("test", 64, default_checkpoint())
    assert args.group == ["race", "gender"]
    args = parser.parse_args(["push", "--repo-id", "me/faces"])
    assert (args.private, args.create_pr, args.dry_run, args.model) == (True, False, False, None)
    assert not parser.parse_args(["push", "--repo-id", "me/faces", "--public"]).private
    args = parser.parse_args(["predict", "a.jpg", "b"])
    assert (args.images, args.align, args.json, args.threshold) == (
        ["a.jpg", "b"],
        True,
        False,
        None,
    )


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("the disk is full: free some space"), 2, "error: the disk is full"),
        (NotADirectoryError(20, "Not a directory", "a/b"), 2, "error: a/b: Not a directory"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ModuleNotFoundError("no", name="accelerate"), 2, "error: convert needs accelerate"),
    ],
)
def test_command_that_cannot_go_on_ends_in_one_line(error, code, text, monkeypatch, capsys):
    from label2label.training import conversion

    def fail(args):
        raise error

    monkeypatch.setattr(conversion, "convert_command", fail)
    assert main(["convert", "a.pt", "out"]) == code
    err = capsys.readouterr().err
    assert err.startswith(text)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        *(
            (command, module, extra)
            for command in ("convert", "predict")
            for module, extra in (
                ("onnx.helper", "export"),
                ("pyarrow.parquet", "label"),
                ("openvino", "runtimes"),
                ("matplotlib.pyplot", "train"),
            )
        ),
        ("predict", "torch.nn", "torch"),
        ("convert", "torch.nn", "train"),
        ("export", "torch.nn", "export"),
    ],
)
def test_missing_module_is_named_with_the_extra_that_installs_it(
    command, module, extra, monkeypatch, capsys
):
    def fail(args):
        raise ModuleNotFoundError("no", name=module)

    arguments = {"convert": ["a.pt", "out"], "predict": ["a.jpg"], "export": ["--output", "out"]}
    monkeypatch.setattr(f"label2label.{COMMANDS[command].replace(':', '.')}", fail)
    assert main([command, *arguments[command]]) == 2
    name = module.partition(".")[0]
    assert capsys.readouterr().err == (
        f"error: {command} needs {name}, which is not installed: install label2label with its "
        f"extra [{extra}]\n"
    )


def test_extras_are_those_of_the_package():
    tomllib = pytest.importorskip("tomllib")
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = pyproject["project"]["optional-dependencies"]
    for module, extra in EXTRAS.items():
        assert any(re.match(rf"{module}\b", line) for line in extras[extra]), module


def test_a_reader_that_has_read_enough_is_no_error():
    code = (
        "import sys, label2label.training.conversion as conversion\n"
        "from label2label.cli import main\n"
        "def fail(args): raise BrokenPipeError(32, 'Broken pipe')\n"
        "conversion.convert_command = fail\n"
        "sys.exit(main(['convert', 'a.pt', 'out']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_warnings_and_streams_are_left_as_they_were(capsys, monkeypatch):
    filters, show, errors = list(warnings.filters), warnings.showwarning, sys.stdout.errors
    monkeypatch.setattr(
        "label2label.prediction.command.predict_command",
        lambda args: warnings.warn("odd\x1b", stacklevel=1) or 0,
    )
    assert main(["predict", "a.jpg"]) == 0
    assert capsys.readouterr().err == "warning: odd\\x1b\n"
    assert warnings.filters == filters
    assert warnings.showwarning is show
    assert sys.stdout.errors == errors


def test_temporary_folders_of_killed_processes_are_removed_at_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = (
        "import os, signal, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from label2label.files import temporary_folder\n"
        "with temporary_folder('audit') as folder:\n"
        "    (folder / 'photo').write_text('private')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], check=False)
    assert len(list(tmp_path.glob("label2label-audit-*/photo"))) == 1
    (tmp_path / "label2label-mine").mkdir()  # not made by `temporary_folder`
    monkeypatch.setattr("label2label.prediction.command.predict_command", lambda args: 0)
    with temporary_folder("audit") as alive:
        assert main(["predict", "a.jpg"]) == 0
        assert {path.name for path in tmp_path.iterdir()} == {alive.name, "label2label-mine"}
    assert not alive.exists()


def test_fault_of_ours_is_not_hidden(monkeypatch):
    from label2label.training import conversion

    def fail(args):
        raise ModuleNotFoundError("no", name="label2label.lost")

    monkeypatch.setattr(conversion, "convert_command", fail)
    with pytest.raises(ModuleNotFoundError):
        main(["convert", "a.pt", "out"])
