"""No byte of a prediction depends on its batch with exact rounding; with free rounding, some do."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from livestep import StepModel
from livestep.models.contract import State, state_tensors
from livestep.pipeline.audit.audit_report import AuditReport
from livestep.pipeline.audit.judge import Judge
from livestep.pipeline.audit.unrolled import unroll_log
from tests.support.shaped import SHAPES, ShapedEvents, shaped_model
from tests.support.world import DEAD, INPUT, OUTPUT, World, loaded, plain


class BatchSized(StepModel):
    """Its outputs depend a little on the number of rows of a call, as a kernel's rounding may."""

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, self.input_size)

    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        state = self.initial_state(len(inputs)) if prev_state is None else prev_state
        following = 0.5 * state_tensors(state)[0] + inputs
        return following + 2.0**-22 * len(inputs), following


def outputs(world: World) -> list[Any]:
    """Return all that is in the output topic, by its source: batches mix the keys otherwise."""
    topic = [
        (one.partition(), one.key(), one.value(), one.headers(), one.timestamp())
        for one in world.broker.records(OUTPUT)
    ]
    return sorted(topic, key=repr)


def free_report(world: World) -> AuditReport:
    judge = Judge(INPUT, 2, world.model, rounding="free")
    for record in world.broker.records(DEAD):
        judge.take_dead_letter(plain(record))
    judge.take_events(
        unroll_log(
            map(plain, world.broker.records(INPUT)), world.model, judge.dead, lambda *_: None
        )
    )
    for record in world.broker.records(OUTPUT):
        judge.take_prediction(plain(record))
    return judge.report()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", SHAPES)
def test_batches_of_any_size_write_the_same_bytes(shape: Any, seed: int) -> None:
    # Given a random model, with feedback and drawn labels in some, and its events
    rng = random.Random(f"{shape}/{seed}")
    model = shaped_model(rng, shape)
    records = list(ShapedEvents(model, rng, keys=9).take(120))
    found = []
    # When they are predicted in batches of one, of some and of many
    for batch_events_max in (1, 7, 200):
        world = World(model)
        for key, value, headers, timestamp_ms, _ in records:
            world.publish(key.decode(), value, headers=headers, timestamp_ms=timestamp_ms)
        world.run_to_end(batch_events_max=batch_events_max, pool_slots=400)
        found.append(outputs(world))
    # Then the topic has the same bytes
    assert found[0]
    assert found[0] == found[1] == found[2]


def test_only_free_rounding_depends_on_the_batch_and_an_exact_audit_finds_it() -> None:
    found = {}
    for rounding in ("exact", "free"):
        for batch_events_max in (1, 40):
            world = World(loaded(BatchSized(2, 2)))
            world.publish_random(random.Random(0), 40)
            world.run_to_end(rounding=rounding, batch_events_max=batch_events_max, pool_slots=100)
            found[rounding, batch_events_max] = outputs(world)
            assert world.report().is_clean == (rounding == "exact")
            assert 0 <= free_report(world).max_difference < 1e-4
    assert found["exact", 1] == found["exact", 40]
    assert found["free", 1] != found["free", 40]
