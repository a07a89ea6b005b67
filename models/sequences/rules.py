"""How a key's events form sequences, and what is answered: the rules in `model.json`.

    shape           state is kept             answered
    one-to-one      no                        each event
    one-to-many     no                        each event, with a generated sequence
    many-to-one     until the sequence ends   its end, with the output of its last event
    encode-decode   until the sequence ends   its end, with a generated sequence
    synchronized    until the sequence ends   each event

A sequence ends with a mark in the log (`end`), a tombstone (a null value: the key is forgotten,
nothing is answered), or a session gap in event time; the next event starts from zeros, as it does
at a mark `start`. Otherwise a sequence never ends.

A generated sequence starts with one step whose inputs are all absent, that is, zeros (the go step,
step 0). From then on, each output is fed back into the input that its `Feedback` names, and all
other inputs remain absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from livestep.models.fields.field_types import Category, Field
from livestep.models.model_errors import ModelError

Shape = Literal["one-to-one", "one-to-many", "many-to-one", "encode-decode", "synchronized"]

#: Members of a JSON event that control its sequence; no input may have such a name.
MARKS = ("start", "end", "steps_max")

#: The most sequences that one record ends by a session gap, the longest idle first; later records
#: continue. More than one, since a record may open one: the number of idle sequences must fall.
GAP_ENDS_MAX = 4

#: The least temperature that draws. Below it, logits divided by it exceed float32, or only the
#: largest has a probability, for which there is 0.
TEMPERATURE_MIN = 1e-3

#: The most steps that a model may generate from one event: all are in one transaction.
STEPS_LIMIT = 10_000


class Feedback(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An output that becomes part of the next input of its key.

    An event that carries the input itself takes precedence: the true value that arrives later.

    Attributes:
        output: Name of the output.
        input: Name of the input: optional, of the same kind and width. Of a category, the label
            that was chosen is fed back (one-hot); of a number, the number.
        temperature: 0 chooses the most probable label; `TEMPERATURE_MIN` or more draws one from
            softmax(logits / temperature), by a number that depends on key, offset, and step.
    """

    output: str
    input: str
    temperature: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0


class Generation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a generated sequence ends.

    Attributes:
        steps_max: The limit, and the default for an event without a limit of its own.
        stop_output: Name of the category output that can end it; None if only the limit does.
        stop_value: The label of that output that ends it; its record is the last one.
    """

    steps_max: Annotated[int, msgspec.Meta(ge=1, le=STEPS_LIMIT)]
    stop_output: str | None = None
    stop_value: str | None = None


class SequenceRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All rules of one model.

    Attributes:
        shape: See the table at the top of this file.
        feedback: Outputs that become inputs.
        generation: Required by the shapes that generate, invalid for all others.
        session_gap_ms: A sequence whose last event is more than this before the log's clock ends
            as if by an `end`, at the record that advanced the clock. The clock of a partition is
            the largest event time so far. One record ends at most `GAP_ENDS_MAX` sequences: that
            of its own key, then those that have been idle longest.
    """

    shape: Shape = "synchronized"
    feedback: tuple[Feedback, ...] = ()
    generation: Generation | None = None
    session_gap_ms: Annotated[int, msgspec.Meta(ge=1)] | None = None

    @property
    def fed_inputs(self) -> tuple[str, ...]:
        """Names of the inputs that feedback can fill."""
        return tuple(link.input for link in self.feedback)

    @property
    def is_stateless(self) -> bool:
        """Whether nothing is kept from one event to the next."""
        return self.shape in ("one-to-one", "one-to-many")

    @property
    def is_generating(self) -> bool:
        """Whether outputs are generated from the model's own outputs."""
        return self.shape in ("one-to-many", "encode-decode")

    @property
    def is_feeding_events(self) -> bool:
        """Whether an event's absent inputs are filled from the previous output.

        The shapes that generate feed back only within the generated sequence.
        """
        return bool(self.feedback) and not self.is_generating


#: One output for each event of each key, in a sequence that never ends.
DEFAULT_RULES = SequenceRules()


def check_rules(
    rules: SequenceRules, inputs: Sequence[Field], outputs: Sequence[Field], codec: str
) -> None:
    """Check that rules and fields fit each other.

    Args:
        rules: The rules.
        inputs: The model's inputs.
        outputs: The model's outputs.
        codec: "json" or "float32".

    Raises:
        ModelError: If they don't; with the member of `model.json`.
    """
    for field in inputs:
        if codec == "json" and field.name in MARKS:
            raise ModelError(
                "the name is reserved for a mark of the sequence", field="inputs", found=field.name
            )
    _check_generation(rules, outputs)
    if rules.is_stateless and rules.session_gap_ms is not None:
        raise ModelError(
            f"a {rules.shape} model has no open sequence to end", field="session_gap_ms"
        )
    if rules.shape == "one-to-one" and rules.feedback:
        raise ModelError("a one-to-one model keeps no output to feed back", field="feedback")
    for member in ("input", "output"):
        names = [getattr(link, member) for link in rules.feedback]
        for name in names:
            if names.count(name) > 1:
                raise ModelError(f"the {member} {name!r} is listed twice", field="feedback")
    for link in rules.feedback:
        _check_link(link, inputs, outputs, codec)


def _check_generation(rules: SequenceRules, outputs: Sequence[Field]) -> None:
    generation = rules.generation
    if rules.is_generating and (generation is None or not rules.feedback):
        missing = "generation" if generation is None else "feedback"
        raise ModelError(f"required by the shape {rules.shape}", field=missing)
    if generation is None:
        return
    if not rules.is_generating:
        raise ModelError(f"a {rules.shape} model generates nothing", field="generation")
    if generation.stop_output is None and generation.stop_value is None:
        return
    field = _find(outputs, generation.stop_output)
    if not isinstance(field, Category):
        raise ModelError(
            "not a category output",
            field="generation.stop_output",
            expected=[one.name for one in outputs if isinstance(one, Category)],
            found=repr(generation.stop_output),
        )
    if generation.stop_value not in field.values:
        raise ModelError(
            f"output {field.name!r} has no such value",
            field="generation.stop_value",
            expected=list(field.values),
            found=repr(generation.stop_value),
        )


def _check_link(
    link: Feedback, inputs: Sequence[Field], outputs: Sequence[Field], codec: str
) -> None:
    source, target = _find(outputs, link.output), _find(inputs, link.input)
    for member, found, name in (
        ("feedback.output", source, link.output),
        ("feedback.input", target, link.input),
    ):
        if found is None:
            raise ModelError("unknown field", field=member, found=repr(name))
    assert source is not None and target is not None
    if not target.optional:
        raise ModelError(
            f"input {target.name!r} must be optional: most events leave it to feedback",
            field="feedback.input",
        )
    is_category = isinstance(source, Category)
    if type(source) is not type(target) or source.width != target.width:
        raise ModelError(
            f"{link.output!r} can't be fed into {link.input!r}",
            field="feedback",
            expected=f"a {type(source).__name__} of {source.width} columns",
            found=f"a {type(target).__name__} of {target.width}",
        )
    if is_category and source.values != target.values:  # type: ignore[union-attr]
        raise ModelError(
            f"{link.output!r} and {link.input!r} have different values, or in a different order",
            field="feedback",
            expected=list(source.values),  # type: ignore[union-attr]
            found=list(target.values),  # type: ignore[union-attr]
        )
    if link.temperature and not is_category:
        raise ModelError("only a category can be drawn", field="feedback.temperature")
    if 0 < link.temperature < TEMPERATURE_MIN:
        raise ModelError(
            "too small; 0 chooses the most probable label",
            field="feedback.temperature",
            expected=f"0, or {TEMPERATURE_MIN} or more",
            found=link.temperature,
        )
    if link.temperature and codec != "json":
        raise ModelError(
            "raw float32 can't hold a drawn label; use codec json",
            field="feedback.temperature",
        )


def _find(fields: Sequence[Field], name: str | None) -> Field | None:
    return next((field for field in fields if field.name == name), None)
