"""The truth test: streamed outputs == offline unroll per key, each event once, in order."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livestep import GRU, LSTM, StepModel, VanillaRNN
from tests.services.conftest import MakeRunning


def random_net(rng: random.Random) -> StepModel:
    """Draw a small model of any kind."""
    sizes = {
        "input_size": rng.randint(1, 5),
        "hidden_size": rng.randint(1, 16),
        "output_size": rng.randint(1, 4),
    }
    kind = rng.choice([VanillaRNN, GRU, LSTM])
    return kind(**sizes) if kind is VanillaRNN else kind(**sizes, num_layers=rng.randint(1, 3))


@pytest.mark.parametrize("seed", range(4))
def test_predictions_equal_the_unroll_whatever_model_keys_batches_and_pool(
    pipeline: MakeRunning, seed: int
) -> None:
    # Given a random model, and events of random keys
    rng = random.Random(seed)
    running = pipeline(net=random_net(rng), seed=seed)
    running.publish(rng.randint(300, 3_000), keys=rng.choice([1, 20, 400]), seed=seed)

    # When several workers, one after the other, read on with batches and pools of random sizes
    for _ in range(2):
        batch = rng.choice([1, 7, 100, 20_000]) if running.published < 1_000 else 500
        running.burst(batch_events_max=batch, pool_slots=max(2 * batch, rng.choice([2, 64, 5_000])))
        running.publish(rng.randint(1, 500), keys=400, seed=seed)
    running.burst()

    # Then each event has its prediction, once, in order, as if its key had been alone
    running.assert_truth()


def test_two_workers_share_the_keys_and_a_third_joins(pipeline: MakeRunning) -> None:
    # Given two workers
    running = pipeline()
    first, second = running.start(), running.start()
    running.publish(5_000)

    # When a third joins in the middle, and the first leaves by SIGTERM
    third = running.start()
    for _ in range(5):
        running.publish(2_000)
    running.wait_for_log(third, "assigned partitions")
    running.publish(2_000)
    first.stop()
    running.publish(2_000)
    running.wait_until_done()

    # Then nothing is lost, repeated or mixed up, and a leaving worker left with everything saved
    assert first.exit_code == 0, first.log_tail()
    second.stop()
    third.stop()
    assert "undone" not in first.log_tail(1_000)
    running.assert_truth()


def test_at_least_once_keeps_exact_states_when_nothing_crashes(pipeline: MakeRunning) -> None:
    running = pipeline()
    running.publish(2_000)
    running.burst(guarantee="at-least-once", batch_events_max=300, pool_slots=600)
    running.publish(500)
    running.burst(guarantee="at-least-once")
    running.assert_truth()


@pytest.mark.parametrize(
    "options",
    [
        {
            "environment": {
                "LIVESTEP_KAFKA_COMPRESSION_TYPE": "lz4",
                "LIVESTEP_KAFKA_LINGER_MS": "3",
            }
        },
        {"environment": {"LIVESTEP_KAFKA_GROUP_PROTOCOL": "consumer"}},
        {"group_instance_id": "static"},
    ],
    ids=["client options", "new group protocol", "static member"],
)
def test_client_options_pass_through_and_the_truth_holds(
    pipeline: MakeRunning, options: dict[str, Any]
) -> None:
    running = pipeline()
    for _ in range(2):
        running.publish(500)
        running.burst(**dict(options))
    running.assert_truth()


def test_raw_float32_models_are_served_as_exactly_as_json(pipeline: MakeRunning) -> None:
    # Given a model whose codec is raw float32
    running = pipeline(codec="float32")
    rng = random.Random(1)
    events = [
        (b"k%d" % rng.randrange(9), np.array([rng.gauss(0, 1) for _ in range(3)], "<f4").tobytes())
        for _ in range(1_000)
    ]

    # When it runs
    running.publish_raw(events)
    running.burst()

    # Then its predictions are the unroll's
    running.assert_truth()


def test_a_worker_leaves_no_file_where_it_is_started(
    pipeline: MakeRunning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an empty folder
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)

    # When a worker is started there, and ends
    running = pipeline()
    running.publish(20)
    running.burst()

    # Then it is as empty as before
    assert list(folder.iterdir()) == []
