"""The worker, the clients, and the commands: events in, predictions out, for every key of a topic.

Each package imports only from packages below it:

    commands/     the command line: one module per command
    app.py        puts a worker together from its settings
    faust_app.py  the Faust app around an engine
    memory/       Kafka and Redis replaced by objects in this process, for tests
    audit/        an independent check of an output topic against the offline unroll
    publishing/   events from CSV and JSON Lines files
    clients/      EventPublisher, PredictionReader, DeadLetterReader
    kafka/        the log: consumer, transactions, administration, security
    engine/       the cycle of a worker: takeover, recovery, saving, status
    batch/        from records to arrays, through the model, to answers
    state/        hidden states: in memory, as bytes, in Redis
    columns/      the records of a poll as arrays and columns of bytes
    native/       the loops that run once per record, in Rust; optional
    process/      what a worker does as a process: signals, deadline, identity, streams

Settings, records, shared types and errors are the modules at the bottom.
"""
