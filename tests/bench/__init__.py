"""Speed and memory of livestep and its peers, on the same events, broker and machine.

    python -m tests.bench                   (make bench)
    python -m tests.bench --rows livestep-exactly-once,pass-through --quick

    dataset.py           the events, and the offline outputs of the model
    bench_topics.py      topics and their filling
    contestants.py       the rows: how each system is started
    peer_environment.py  what the peers are made of, installed on first use
    peers/               each peer, as its users would write it
    pass_through.py      read, write, transaction and no model: the limit
    reader.py            the independent reader of outputs, and the rate it sees
    checker.py           wrong, missing, duplicate
    throughput.py        one run over a full log
    latency.py           one run at a steady rate,
    bench_feed.py        and its producer
    memory.py            keys beyond the pool, bytes of a key
    shapes.py            livestep over each shape of sequence
    shape_cases.py       their models and events
    shape_audit.py       the independent judge over some keys of a run
    generation_cost.py   many open sequences together, against one after another
    results.py           results/<date>.json, and the tables in README.md and docs/speed.md

Caveats:
    - All numbers are of one machine on which broker, Redis, load, reader and contestant share the
      cores: read them as ratios. Every contestant is one process with one thread for the model.
    - Throughput is taken from the outputs' arrival at a `read_committed` reader, between about 15
      and 85 % of them; the two ends are moved to the longest pauses nearby, so that a system which
      commits in large lumps gains nothing by it. Starting up is left out for all alike.
    - Fast systems (pass-through, livestep, Kafka Streams) read six times as many events under
      further keys as the slow ones; a run would be over before it is warm.
    - Utterances repeat under new keys. A state given to another key of the same utterance at the
      same timestep could not be seen here; the truth test looks for that.
    - Peers that commit by time do so once a second, which is kind to their throughput and bad for
      the latency of those with transactions; Kafka Streams also has a row with its default, 100 ms.
    - Latency is from the producer's call to the reader's hands, at the rate that the row gives:
      20,000 events/s, or a quarter of what a slower system can do; none where a system had not
      caught up with its own start within the run.
    - Shapes: events/s in is the steady rate of the outputs times events by outputs; where sequences
      end, their ends are spread evenly over the log. One-to-one and synchronized with the same net
      run in turn, up to five times, the other shapes once. A label comes with the probabilities of
      all 27, which is most of the bytes that the shapes that generate write. The judge looks at
      some keys of the first run, each with all its events and answers; of the other keys the
      answers are counted.
    - Peers keep their state on this machine's disk or broker; nothing is replicated, in no row.
"""
