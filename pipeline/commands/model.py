"""`livestep model`: check a model, import a program, begin a model of one's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click
from rich.console import Console
from rich.table import Table

from livestep.pipeline.commands.field_options import F, fields_options, read_fields
from livestep.pipeline.commands.shared_options import codec_option
from livestep.pipeline.commands.starter import write_starter
from livestep.pipeline.errors import ConfigError
from livestep.pipeline.exit_codes import ExitCode, exit_codes_help
from livestep.pipeline.settings import split_names

# torch takes seconds that --help need not wait: models are imported by the commands that need them.
if TYPE_CHECKING:
    from livestep.models.contract import StepModel
    from livestep.models.fields.field_types import Field

#: What --time-axis takes.
_TIME_AXES: Final[Mapping[str, Literal[0, 1]]] = {"0": 0, "1": 1}

#: Width of the table where there is no terminal.
_TABLE_WIDTH = 140


def packages_option(text: str) -> Callable[[F], F]:
    """Add --model-packages with its help."""
    return click.option(
        "--model-packages",
        default="",
        envvar="LIVESTEP_MODEL_PACKAGES",
        show_envvar=True,
        metavar="NAME[,...]",
        help=text,
    )


@click.group()
def model() -> None:
    """Check a model, import a program, begin a model of your own."""


@model.command(
    "check",
    short_help="Can it be stepped live? Exit 0 or 1.",
    epilog=exit_codes_help(ExitCode.FOUND, ExitCode.MODEL),
)
@click.argument("target", metavar="DIR|package.module:Class")
@packages_option(
    "Packages whose classes a directory may name, and torchscript or exported if it may hold a "
    "program. A class given as such is imported anyway."
)
@click.option("--sizes", default="{}", metavar="JSON", help="Arguments of a class, as an object.")
@fields_options(is_required=False)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or auto.")
@click.option("--seed", default=0, show_default=True, help="Of the random events.")
def check_command(
    target: str,
    model_packages: str,
    sizes: str,
    inputs: str | None,
    outputs: str | None,
    device: str,
    seed: int,
) -> None:
    """Check what live stepping needs of a model, on random events, and measure its speed.

    A class is made with random weights, by the arguments in --sizes; what its columns mean is taken
    from --inputs and --outputs, else from its attributes input_size and output_size.
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
            raise ModelError("a directory says itself what its columns mean", field="--inputs")
        loaded = load_model(target, str(choose_device(device)), split_names(model_packages))
        net, fields = loaded.net, loaded.inputs
        title = f"{loaded.name}, fingerprint {loaded.fingerprint}"
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=_TABLE_WIDTH)
    table = Table("check", "result", "what to do", title=title, title_justify="left")
    failed = unchecked = 0
    torch.set_num_threads(1)  # as a worker does by default: what is measured is what it will get
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
    short_help="Make a model directory of a TorchScript or exported program.",
    epilog=exit_codes_help(ExitCode.MODEL),
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--state",
    default="",
    metavar="NAME[,...]",
    help="Arguments of the program that are states.  [default: all after the first]",
)
@click.option(
    "--state-shape",
    "state_shapes",
    multiple=True,
    metavar="NAME=[DTYPE:]SIZE,...",
    help="Shape of one key's state, such as h=64; with N where the key axis is if it isn't the "
    "first, h=1,N,64; repeatable. Exported programs say it themselves.",
)
@click.option(
    "--time-axis",
    type=click.Choice(list(_TIME_AXES)),
    help="Where the inputs have an axis of one timestep: 1 for (N, 1, columns), 0 for (1, N, "
    "columns). Exported programs say it themselves.  [default: (N, columns)]",
)
@fields_options(is_required=True)
@click.option(
    "--rules",
    default="{}",
    metavar="JSON",
    help='Rules that are not the default, such as {"shape": "many-to-one"}.',
)
@codec_option
@packages_option("Has to name torchscript or exported, the kind of the program: it is run.")
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
    """Make DIR, which a worker takes, from a program whose states are inputs and outputs.

    The program's forward takes (inputs, state...) and gives (outputs, next state...); inputs are
    (N, columns), or have an axis of one timestep. Tuples are opened: the pair `state` of an LSTM is
    state_0 and state_1. A program is code, and the import runs it: take it from people you trust.
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
            click.echo(f"keys in one call: {bounds}; other batches are stepped in pieces")
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
    epilog=exit_codes_help(ExitCode.SETTING),
)
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
def init_command(directory: Path) -> None:
    """Write a model, its training, events and a test to DIR; its README makes it live."""
    try:
        names = write_starter(directory)
    except OSError as error:
        raise ConfigError(f"{directory} can't be written: {error.strerror}") from None
    for name in names:
        click.echo(f"written  {directory / name}")
    click.echo(f"next: cd {directory} && python train.py, and so on in its README.md")


def _class_model(
    path: str,
    sizes: dict[str, Any],
    inputs: Sequence[Field] | None,
    outputs: Sequence[Field] | None,
    device: str,
) -> StepModel:
    """Make a class's model with random weights."""
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
                f"not the columns of a {kind.__name__} of these --sizes",
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
        raise click.BadParameter("no JSON object", param_hint="--sizes")
    return value
