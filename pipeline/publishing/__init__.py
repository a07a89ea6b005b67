"""`livestep publish`: convert the rows of a file to records, and account for each one.

    files.py        reads lines in blocks, and parses rows, each with its line number
    json_lines.py   parses one JSON object without changing any number
    json_records.py converts lines of JSON to records: plain lines quickly, the others as rows
    plain_events.py the type of a model's plain events, which msgspec checks
    csv_cells.py    parses cells: numbers, booleans, times
    columns.py      the roles of columns; converts a row to a record, or to a bad row with a reason
    values.py       the value of a record, with or without a model's fields
    limits.py       finds what the broker would refuse, before it is sent
    expiry.py       finds events that Kafka would soon delete
    position.py     the progress, in the format of --skip
    rejects.py      the file of rows that were left out
    publication.py  one run: bad rows, refusals, signals, the report
    interrupts.py   signals between two rows
    setup.py        columns, values and limits, from the options and the broker
    publish_run.py  runs all of it

`clients/record_sender.py` sends the records; only `setup.py` uses a Kafka client here.
"""
