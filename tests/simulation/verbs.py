"""Where the simulation looks into the engine: at the beginning and the end of each verb."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import livestep.pipeline.batch.stepping
import livestep.pipeline.engine.cycle
import livestep.pipeline.engine.saver
import livestep.pipeline.process.deadline
from livestep.pipeline.batch.codec import Codec
from livestep.pipeline.batch.stepping import Stepper
from livestep.pipeline.engine.cycle import Cycle, StoreBehindError
from livestep.pipeline.engine.log import AbortedError
from livestep.pipeline.engine.saver import Saver
from livestep.pipeline.errors import EngineError
from livestep.pipeline.state.pool import Pool
from tests.simulation.baton import Clock, Queues, Threading

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

#: Says what a verb has done: from its arguments and its result.
Teller = Callable[[tuple[Any, ...], Any], str]


def in_place_of_the_real_ones(simulation: Simulation, patch: pytest.MonkeyPatch) -> None:
    """Put waiting under the simulation's clock, and tell it of each verb."""
    scheduler = simulation.scheduler
    patch.setattr(livestep.pipeline.engine.saver, "threading", Threading(scheduler))
    patch.setattr(livestep.pipeline.engine.saver, "queue", Queues(scheduler))
    patch.setattr(livestep.pipeline.engine.saver, "time", Clock(scheduler))
    patch.setattr(livestep.pipeline.engine.cycle, "time", Clock(scheduler))
    patch.setattr(livestep.pipeline.process.deadline, "time", Clock(scheduler))
    for owner, name, verb, tell in (
        (Cycle, "pack", "pack", _packed),
        (Cycle, "load", "load", _loaded),
        (Stepper, "step", "step", _stepped),
        (Cycle, "send", "send", _sent),
        (Cycle, "commit", "commit", _committed),
        (Cycle, "commit_positions", "commit", _committed_positions),
        (Cycle, "save", "save", _saved),
    ):
        patch.setattr(owner, name, _told(simulation, getattr(owner, name), verb, tell))
    for owner, name, verb, is_after in (
        (Codec, "read", "pack", False),
        (Pool, "find", "load", False),
        (Pool, "write", "save", True),
        (Saver, "put", "save", False),
    ):
        original = getattr(owner, name)
        patch.setattr(owner, name, _met(simulation, original, verb, is_after=is_after))
    split = _met(simulation, livestep.pipeline.batch.stepping.split, "step", is_after=True)
    patch.setattr(livestep.pipeline.batch.stepping, "split", split)


def _told(simulation: Simulation, original: Any, verb: str, tell: Teller) -> Any:
    """Make a method that is a verb."""

    def called(*args: Any, **options: Any) -> Any:
        with simulation.verb(verb):
            try:
                result = original(*args, **options)
            except (AbortedError, EngineError, StoreBehindError) as error:
                simulation.tell(f"{verb:8}fails: {error}")
                raise
            simulation.tell(f"{verb:8}{tell(args, result)}")
        return result

    return called


def _met(simulation: Simulation, original: Any, verb: str, *, is_after: bool) -> Any:
    """Make a function at whose call something may strike, if it is called within a verb."""

    def called(*args: Any, **options: Any) -> Any:
        running = simulation.scheduler.running
        if isinstance(args[0], Pool):
            running.process.pool = args[0]
        if running.verb == verb and not is_after:
            simulation.meet("", "before", verb)
        result = original(*args, **options)
        if running.verb == verb and is_after:
            simulation.meet("", "before", verb)
        return result

    return called


def _packed(args: tuple[Any, ...], batch: Any) -> str:
    return f"{len(batch.records)} events of {len(batch.keys)} keys, {len(batch.dead)} bad"


def _loaded(args: tuple[Any, ...], states: Any) -> str:
    return f"{len(states)} keys, {int((states.offsets >= 0).sum())} with a state"


def _stepped(args: tuple[Any, ...], stepped: Any) -> str:
    return f"{len(stepped.answers.event)} answers, {len(stepped.refusals)} refused"


def _sent(args: tuple[Any, ...], _: Any) -> str:
    _, batch, stepped = args
    return f"{len(stepped.answers.event)} predictions, {len(batch.dead)} dead letters"


def _committed(args: tuple[Any, ...], _: Any) -> str:
    _, batch = args
    return "; ".join(f"{p} -> {offset}" for p, offset in batch.next_offsets.items())


def _committed_positions(args: tuple[Any, ...], is_done: Any) -> str:
    cycle, partitions = args
    owned = cycle._partitions  # noqa: SLF001
    texts = [f"{p} -> {owned[p].position}" for p in sorted(partitions)]
    return f"{'; '.join(texts)}, without an event{'' if is_done else ', aborted'}"


def _saved(args: tuple[Any, ...], _: Any) -> str:
    _, batch, _ = args
    return f"{len(batch.keys)} keys; " + "; ".join(
        f"{p} up to {offset}" for p, offset in batch.next_offsets.items()
    )
