"""Log and store in this process, for tests of your model without services.

`predict_in_memory` predicts a list of events, in one call.  For what happens around them,
`start_worker` runs the worker's own engine on a `MemoryBroker` and a `MemoryStore`: a crash, a
rebalance, or a store that forgets is then one call, in milliseconds.  Log and store behave as the
real ones in all that the guarantees need, and pass the same tests (`tests/services/test_log.py` and
`test_store.py`).  There is no clock: a call ends what a time-out would end (`MemoryBroker.fence`
for a transaction, `MemoryGroup.rebalance` for a member).

Example:
    A worker crashes, its group moves its partitions to another, and Redis loses all it had.  Each
    event has its prediction once, as if nothing had happened.

    >>> import tempfile
    >>> import orjson
    >>> from livestep import GRU, MemoryStore, load_model, memory_broker, run_to_end, save_model
    >>> from livestep import start_worker
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     save_model(GRU(input_size=1, hidden_size=4, output_size=1), directory)
    ...     model = load_model(directory)
    >>> broker, store = memory_broker(), MemoryStore()
    >>> events = [{"x": x / 10} for x in range(6)]
    >>> for event in events[:5]:
    ...     _ = broker.publish("events", b"key", orjson.dumps(event))
    >>> crashed = start_worker(model, broker, store, "a", batch_events_max=2)
    >>> crashed.run(crashed.poll(0))                        # two of five, and never called again
    >>> broker.group.rebalance({})                          # its session has ended
    >>> store.flush()                                       # Redis loses all
    >>> _ = broker.publish("events", b"key", orjson.dumps(events[5]))
    >>> run_to_end(start_worker(model, broker, store, "b"))  # replays two, predicts four
    >>> found = [orjson.loads(record.value())["y"] for record in broker.records("predictions")]
    >>> expected = [answer["y"] for answer in model.unroll_events(events)]
    >>> len(found), all(abs(a - b) < 1e-6 for a, b in zip(found, expected, strict=True))
    (6, True)
"""
