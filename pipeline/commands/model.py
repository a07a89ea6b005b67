"""`livestep model`: check a model, import a program, or start a model of your own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click
from rich.console import Console
from rich.table import Table

from livestep.pipeline.commands.field_options import FIELDS_HELP, F, fields_options, read_fields
from livestep.pipeline.commands.help_text import closing_help, examples_help
from livestep.pipeline.commands.shared_options import codec_option
from livestep.pipeline.commands.starter import write_starter
from livestep.pipeline.errors import ConfigError
from livestep.pipeline.exit_codes import ExitCode
from livestep.pipeline.settings import split_names

# Torch takes seconds to import, and --help should not wait: each command imports what it needs.
if TYPE_CHECKING:
    from livestep.models.contract import StepModel
    from livestep.models.fields.field_types import Field

#: Values of --time-axis.
_TIME_AXES: Final[Mapping[str, Literal[0, 1]]] = {"0": 0, "1": 1}

#: Width of the table without a terminal.
_TABLE_WIDTH = 140


def packages_option(text: str) -> Callable[[F], F]:
    """Add --model-packages with this help."""
    return click.option(
        "--model-packages",
        default="",
        envvar="LIVESTEP_MODEL_PACKAGES",
        show_envvar=True,
        metavar="NAME[,...]",
        help=text,
    )


@click.group(
    epilog=examples_help(
        "livestep model init sensors",
        "livestep model check DIR",
    )
)
def model() -> None:
    """Check a model, import a program, or start a model of your own."""


@model.command(
    "check",
    short_help="Can it be stepped live? Exit 0 or 1.",
    epilog=FIELDS_HELP
    + closing_help(
        "livestep model check DIR",
        "livestep model check my_model:Forecast --sizes '{\"hidden_size\": 8}' \\",
        "  --inputs value --outputs next_value",
        codes=(ExitCode.FOUND, ExitCode.MODEL),
    ),
)
@click.argument("target", metavar="DIR|package.module:Class")
@packages_option("Packages, torchscript or exported that may run.")
@click.option("--sizes", default="{}", metavar="JSON", help="Arguments of the class, as an object.")
@fields_options(is_required=False)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or auto.")
@click.option("--seed", default=0, show_default=True, help="Seed of the random events.")
def check_command(
    target: str,
    model_packages: str,
    sizes: str,
    inputs: str | None,
    outputs: str | None,
    device: str,
    seed: int,
) -> None:
    """Report which rules of live stepping a model breaks, how to fix them, and its speed.

    Runs the model on random events. A class gets random weights and the arguments in --sizes; its
    columns are those of --inputs and --outputs, else its attributes input_size and output_size.

    A directory may use the classes of the packages in --model-packages, and programs of a kind that
    is listed there (torchscript, exported). A class on the command line is always imported.
    """
    import torch

    from livestep.models.checks.check_report import report
    from livestep.models.devices import choose_device
    from livestep.models.disk.loading import load_model
    from livestep.models.model_errors import ModelError

    fields: Sequence[Field] | None
    if ":" in target and not Path(target).is_dir():
        fields = None if inputs is None else read_fields(inputs, "--inputs")
        given = None if outputs is None else read_fields(outputs, "--outputs")
        net = _class_model(target, _json_object(sizes), fields, given, str(choose_device(device)))
        title = target
    else:
        if inputs is not None or outputs is not None or sizes != "{}":
            raise ModelError("not allowed for a directory, which has its own", field="--inputs")
        loaded = load_model(target, str(choose_device(device)), split_names(model_packages))
        net, fields = loaded.net, loaded.inputs
        title = f"{loaded.name}, fingerprint {loaded.fingerprint}"
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=_TABLE_WIDTH)
    table = Table("check", "result", "what to do", title=title, title_justify="left")
    failed = unchecked = 0
    torch.set_num_threads(1)  # as a worker does by default, so that the measured speed is its speed
    for result in report(net, fields, seed):
        failed += result.verdict == "failed"
        unchecked += result.verdict == "not checked"
        style = {"ok": "", "failed": "red", "not checked": "dim"}[result.verdict]
        mark = "NO: " if result.verdict == "failed" else ""
        table.add_row(result.name, f"{mark}{result.result}", result.advice, style=style)
    console.print(table)
    verdict = "It can be stepped live."
    if failed:
        rest = f"; {unchecked} not checked because of that" if unchecked else ""
        verdict = f"{failed} to fix{rest}."
    console.print(verdict)
    sys.exit(ExitCode.FOUND if failed else ExitCode.DONE)


@model.command(
    "import",
    short_help="Make a model directory from a TorchScript or exported program.",
    epilog=FIELDS_HELP
    + closing_help(
        "livestep model import program.pt2 DIR --inputs value --outputs next_value \\",
        "  --model-packages exported",
        codes=(ExitCode.MODEL,),
    ),
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--state",
    default="",
    metavar="NAME[,...]",
    help="Arguments that are states.  [default: all after the first]",
)
@click.option(
    "--state-shape",
    "state_shapes",
    multiple=True,
    metavar="NAME=[DTYPE:]SIZE,...",
    help="TorchScript only: shape of a key's state, such as h=64. Repeatable.",
)
@click.option(
    "--time-axis",
    type=click.Choice(list(_TIME_AXES)),
    help="TorchScript only: axis of the inputs for time.  [default: none]",
)
@fields_options(is_required=True)
@click.option(
    "--rules",
    default="{}",
    metavar="JSON",
    help='Rules, such as {"shape": "many-to-one"}.',
)
@codec_option
@packages_option("Allow torchscript or exported: its code runs.")
def import_command(
    file: Path,
    directory: Path,
    state: str,
    state_shapes: tuple[str, ...],
    time_axis: str | None,
    inputs: str,
    outputs: str,
    rules: str,
    codec: Literal["json", "float32"],
    model_packages: str,
) -> None:
    """Make DIR, a model directory, from a program whose states are inputs and outputs.

    The program's forward accepts (inputs, state...) and returns (outputs, next state...). Tuples
    are flattened: the pair `state` of an LSTM becomes state_0 and state_1. A program is code, and
    the import runs it: use programs from people you trust only.

    An exported program contains its shapes. For TorchScript, --state-shape is the shape of one
    key's state; write N if the key axis is not the first: h=1,N,64. --time-axis is 1 if the inputs
    are (N, 1, columns), 0 if they are (1, N, columns); by default they are (N, columns).
    """
    import msgspec

    from livestep.models.disk.saving import save_program
    from livestep.models.foreign.file_kinds import program_kind
    from livestep.models.foreign.program_batches import batch_sizes
    from livestep.models.foreign.program_model import check_program_allowed
    from livestep.models.foreign.program_reading import Program
    from livestep.models.foreign.program_states import (
        choose_states,
        find_time_axis,
        key_axes,
        read_state_shape,
    )
    from livestep.models.model_errors import ModelError
    from livestep.models.sequences.rules import SequenceRules

    try:
        read_rules = msgspec.json.decode(rules, type=SequenceRules)
    except msgspec.MsgspecError as error:
        raise click.BadParameter(str(error), param_hint="--rules") from None
    given = {shape.name: shape for shape in map(read_state_shape, state_shapes)}
    try:
        content = file.read_bytes()
        check_program_allowed(program_kind(content), split_names(model_packages))
        program = Program(content)
        states = choose_states(program, split_names(state), given)
        click.echo(f"{program.kind}, forward({', '.join(program.arguments)})")
        for name, value in program.constants.items():
            click.echo(f"argument {name}: always {value!r}")
        axis = _TIME_AXES[time_axis] if time_axis else find_time_axis(program, states)
        if axis is not None:
            click.echo(f"inputs: ({'N, 1' if axis else '1, N'}, columns)")
        for one in states:
            sizes = list(map(str, one.shape))
            sizes.insert(one.axis, "N")
            click.echo(f"state {one.name}: {one.dtype} ({', '.join(sizes)})")
        axes = key_axes(program, states, axis)
        if bounds := str(batch_sizes(program.examples, axes, program.bounds)):
            click.echo(f"keys in one call: {bounds}; other batches are split")
        save_program(
            content,
            directory,
            states,
            read_fields(inputs, "--inputs"),
            read_fields(outputs, "--outputs"),  # type: ignore[arg-type]
            codec,
            read_rules,
            axis,
        )
    except ModelError as error:
        raise error if error.file else error.in_file(file) from None
    click.echo(f"written to {directory}; next: livestep model check {directory}")


@model.command(
    "init",
    short_help="Write a small working example of a model of your own.",
    epilog=closing_help("livestep model init sensors", codes=(ExitCode.SETTING,)),
)
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
def init_command(directory: Path) -> None:
    """Write a model, its training, events and a test to DIR. The README there makes it live."""
    try:
        names = write_starter(directory)
    except OSError as error:
        raise ConfigError(f"{directory} can't be written: {error.strerror}") from None
    for name in names:
        click.echo(f"written  {directory / name}")
    click.echo(f"next: cd {directory} && python train.py; its README.md has the rest")


def _class_model(
    path: str,
    sizes: dict[str, Any],
    inputs: Sequence[Field] | None,
    outputs: Sequence[Field] | None,
    device: str,
) -> StepModel:
    """Build the model of a class, with random weights."""
    import torch

    from livestep.models.contract import StepModel
    from livestep.models.disk.model_json import SIZE_MAX
    from livestep.models.fields.field_types import is_index, total_width
    from livestep.models.foreign.class_imports import build_module, import_class
    from livestep.models.foreign.foreign_errors import AsModelError
    from livestep.models.foreign.user_classes import AdaptedModel
    from livestep.models.model_errors import ModelError

    kind = import_class(path, [path.partition(":")[0]])
    module = build_module(kind, sizes)
    with AsModelError("eval"):
        module.eval()
    module.requires_grad_(False).to(torch.device(device))
    widths: list[int] = []
    for name, fields in (("input", inputs), ("output", outputs)):
        size = getattr(module, f"{name}_size", None)
        width = total_width(fields) if fields else size
        if isinstance(module, StepModel) and width != size:
            raise ModelError(
                f"wrong number of columns for {kind.__name__} with these --sizes",
                field=f"--{name}s",
                expected=f"{size} columns ({name}_size)",
                found=width,
            )
        if not isinstance(width, int) or width < 1:
            problem = f"{kind.__name__} has no {name}_size: describe its columns"
            raise ModelError(problem, field=f"--{name}s", expected=f"--{name}s FIELDS")
        if width > SIZE_MAX:
            raise ModelError("too many columns", field=f"--{name}s", expected=f"{SIZE_MAX} at most")
        widths.append(width)
    is_casting = not any(map(is_index, inputs or ()))
    return AdaptedModel(module, widths[0], widths[1], sizes, is_casting).eval()


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise click.BadParameter(str(error), param_hint="--sizes") from None
    if not isinstance(value, dict):
        raise click.BadParameter("not a JSON object", param_hint="--sizes")
    return value
