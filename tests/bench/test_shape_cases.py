from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from livestep.pipeline.batch.codec import codec_for
from tests.bench.dataset import INPUT_SIZE, EventLog, Utterances, make_log
from tests.bench.shape_cases import SHAPE_CASES, ShapeCase, make_shape_log
from tests.support.world import OUTPUT, World


def vowels() -> EventLog:
    lengths = np.arange(7, 27)
    features = np.random.default_rng(0).normal(size=(lengths.sum(), INPUT_SIZE))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return make_log(Utterances(features.astype(np.float32), starts), copies=10)


@pytest.mark.parametrize("case", SHAPE_CASES, ids=lambda case: case.row)
def test_every_event_of_a_shape_s_log_fits_its_model(case: ShapeCase, tmp_path: Path) -> None:
    model = case.make().save(tmp_path)
    records = list(make_shape_log(case.log, vowels(), count=300).records())
    assert case.row.startswith(model.rules.shape)

    codec = codec_for(model)
    codec.to_arrays([codec.decode(value) for _, value in records])


@pytest.mark.parametrize("name", ["vowels-ended", "words"])
def test_the_ends_of_sequences_are_spread_evenly_and_counted(name: str) -> None:
    log = make_shape_log(name, vowels(), count=60_000)  # type: ignore[arg-type]

    is_end = np.array([b'"end":true' in value for _, value in log.records()])

    assert is_end.sum() == log.answer_count
    quarters = is_end.reshape(4, -1).sum(axis=1)
    assert quarters.min() > 0.85 * quarters.max()


@pytest.mark.parametrize(("row", "steps"), [("one-to-many", 8), ("encode-decode", 7)])
def test_generated_sequences_end_by_themselves_after_about_as_many_steps(
    row: str, steps: int, tmp_path: Path
) -> None:
    # Given
    case = next(one for one in SHAPE_CASES if one.row == row)
    model = case.make().save(tmp_path)
    world = World(model, partitions=1)
    log = make_shape_log(case.log, vowels(), count=1_000 if row == "one-to-many" else 40_000)
    for key, value in log.records():
        world.publish(key.decode(), value)

    # When
    world.run_to_end(batch_events_max=10_000, pool_slots=20_000)

    # Then
    records = [dict(one.headers() or ()) for one in world.broker.records(OUTPUT)]
    finishes = [headers["finish"] for headers in records if "finish" in headers]
    assert len(finishes) == log.answer_count
    assert abs(len(records) / len(finishes) - steps) < 1
    assert finishes.count(b"stop") > 0.85 * len(finishes)
