"""`livestep publish`: the rows of a file become records, and each one is accounted for.

    files.py        rows of CSV and JSON lines, each with its line
    json_lines.py   one JSON object, exactly as it is written
    cells.py        what a cell says: numbers, truth values, times
    columns.py      which columns mean what; a row becomes a record, or a bad row with the reason
    values.py       the value of a record, by a model's fields or without
    limits.py       what the broker would refuse, known before
    expiry.py       which events Kafka would soon delete
    sender.py       records to the broker, and what became of each
    position.py     how far it has come, as --skip takes it
    rejects.py      the file of rows that are left out
    publication.py  one run: bad rows, refusals, signals, the report
    interrupts.py   signals between two rows
    setup.py        from options and broker to columns, values and limits
    run.py          all of it together

Only `sender.py` and `setup.py` know a Kafka client.
"""
