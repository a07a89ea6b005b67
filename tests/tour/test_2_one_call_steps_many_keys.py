"""2. One model call steps many keys, each from its own state, each in its own order.

A batch of a keyed stream is a `PackedSequence`: the rank of an event within its key is its time
step.  That is why a batch costs little more than one event.
"""

import numpy as np
import torch

from livestep import GRU
from livestep.pipeline.batch.codec import JsonCodec
from livestep.pipeline.batch.packing import pack, rank
from livestep.pipeline.batch.stepping import Stepper
from livestep.pipeline.columns.log_records import records_of
from livestep.pipeline.memory.memory_broker import MemoryRecord
from tests.support.world import loaded


def test_each_key_of_a_mixed_batch_gets_the_output_it_would_get_alone():
    # Given events of two keys in turn: a b a a
    model = loaded(GRU(input_size=1, hidden_size=4, output_size=1))
    codec = JsonCodec(model.inputs, model.outputs)
    records = [
        MemoryRecord(("events", 0, offset), (key, b'{"x": %d}' % offset))
        for offset, key in enumerate([b"a", b"b", b"a", b"a"])
    ]
    batch = pack(records_of("events", records), codec, key_bytes_max=100, value_bytes_max=100)
    assert rank(batch.key_index).batch_sizes.tolist() == [2, 1, 1]  # Both; then a; then a.

    # When one call steps all of them
    stepper = Stepper(model, torch.device("cpu"))
    answers = stepper.step(batch, stepper.layout.fresh(2)).answers

    # Then each key has the outputs of its own sequence
    for events in ([0, 2, 3], [1]):
        alone = model.unroll_rows(np.array(events, np.float32).reshape(-1, 1))
        assert np.array_equal(answers.outputs[events], alone)
    assert answers.timesteps.tolist() == [0, 0, 1, 2]
