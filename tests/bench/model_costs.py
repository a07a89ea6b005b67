"""What two choices about a model cost: its own `step_packed`, and the codec of its events.

`python -m tests.bench.model_costs` prints both tables; no services are needed. Rates are events a
second of processor time, one thread, the best of some runs, so that other load matters little.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from livestep import GRU, LoadedModel, MemoryStore, Number, memory_broker, run_to_end, start_worker
from livestep.models.checks.packed_sequences import pack
from livestep.models.foreign.user_classes import AdaptedModel
from livestep.pipeline.clients.event_encoding import encode_float32, encode_json
from livestep.pipeline.memory.memory_workers import INPUT_TOPIC, OUTPUT_TOPIC

#: Keys of a batch, and events of each.
BATCHES = ((8, 512), (64, 64), (1000, 4), (4096, 1))

#: Floats of an event.
WIDTHS = (4, 64, 512)

_EVENTS, _KEYS, _RUNS = 6_000, 500, 5


class Steps(nn.Module):
    """torch's GRU 12 -> 64 and a head of 9, stepped one event a key at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(12, 64, batch_first=True)
        self.head = nn.Linear(64, 9)

    def initial_state(self, batch_size: int) -> Tensor:
        """Make the zeros of new keys, (N, 1, 64)."""
        return self.head.weight.new_zeros(batch_size, 1, 64)

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Step each key once."""
        outputs, state = self.rnn(inputs.unsqueeze(1), state.transpose(0, 1).contiguous())
        return self.head(outputs[:, 0]), state.transpose(0, 1)


class StepsPacked(Steps):
    """The same, with all events of all keys in one call."""

    def step_packed(self, sequence: PackedSequence, state: Tensor) -> tuple[Tensor, Tensor]:
        """Step each key through its own events."""
        outputs, state = self.rnn(sequence, state.transpose(0, 1).contiguous())
        return self.head(outputs.data), state.transpose(0, 1)


def packed_rate(kind: type[Steps], keys: int, events: int, runs: int = _RUNS) -> float:
    """Measure events a second of one batch, of so many keys with so many events each."""
    torch.manual_seed(0)
    model = AdaptedModel(kind(), 12, 9, {}).eval().requires_grad_(False)
    sequence, _ = pack([torch.randn(events, 12) for _ in range(keys)])
    state = model.initial_state(keys)
    with torch.inference_mode():
        return keys * events / _fastest_s(lambda: model.step_packed(sequence, state), runs)


def codec_rate(codec: str, width: int, events: int = _EVENTS, runs: int = _RUNS) -> float:
    """Measure events a second of the worker's engine in memory, of a GRU width -> 64 -> 1."""
    torch.manual_seed(0)
    net = GRU(width, 64, 1).eval().requires_grad_(False)
    fields = (Number("x", width),), (Number("y"),)
    model = LoadedModel(net, *fields, codec, "0" * 16, "model")  # type: ignore[arg-type]
    rows = np.random.default_rng(0).standard_normal((events, width)).astype("<f4")
    write = encode_float32 if codec == "float32" else encode_json
    values = [write(row) for row in rows]

    times = []
    for _ in range(runs):
        broker = memory_broker(1)
        for index, value in enumerate(values):
            broker.publish(INPUT_TOPIC, b"%d" % (index % _KEYS), value)
        engine = start_worker(model, broker, MemoryStore(), batch_events_max=2_000)
        times.append(_fastest_s(lambda engine=engine: run_to_end(engine), 1))  # type: ignore[misc]
        if (answered := len(broker.records(OUTPUT_TOPIC))) != events:
            raise RuntimeError(f"{answered} of {events} events were answered")
    return events / min(times)


def _fastest_s(run: Callable[[], object], runs: int) -> float:
    times = []
    for _ in range(runs):
        started_s = time.process_time()
        run()
        times.append(time.process_time() - started_s)
    return min(times)


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    print("| keys x events of a batch | step only, events/s | step_packed, events/s | times |")
    print("|---|---:|---:|---:|")
    for keys, events in BATCHES:
        slow, fast = packed_rate(Steps, keys, events), packed_rate(StepsPacked, keys, events)
        print(f"| {keys:,} x {events} | {slow:,.0f} | {fast:,.0f} | {fast / slow:.1f} |")
    print()
    print("| floats of an event | json, events/s | float32, events/s | times |")
    print("|---|---:|---:|---:|")
    for width in WIDTHS:
        slow, fast = codec_rate("json", width), codec_rate("float32", width)
        print(f"| {width} | {slow:,.0f} | {fast:,.0f} | {fast / slow:.1f} |")


if __name__ == "__main__":
    main()
