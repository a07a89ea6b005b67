"""Draws `docs/images/predictions.svg`: predictions that arrive, from a run on real Kafka and Redis.

    python -m docs.tools.picture

Starts both, trains a small model, starts a worker, publishes events of three machines one by one,
and records what a reader prints, and when.  The picture shows each line when it was printed, and
starts over some seconds after the last one.
"""

from __future__ import annotations

import io
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text

from livestep import GRU, Category, EventPublisher, Field, Number, PredictionReader, save_model
from livestep.deploy.local.services import LocalServices, local_services
from livestep.deploy.local.worker_process import WorkerProcess
from livestep.pipeline.kafka.topic_setup import create_topics

PICTURE = Path(__file__).parents[1] / "images" / "predictions.svg"

INPUT_TOPIC, OUTPUT_TOPIC = "readings", "wear"
MACHINES = ("m-1", "m-2", "m-3")
MODES = ("eco", "turbo")

#: What is above the predictions.
HEAD = (
    "$ livestep worker --model wear-model --input-topic readings \\",
    "    --output-topic wear &",
    "# each line: an event is published, and its prediction read",
)

#: Events that are shown, and the pause between two of them.
EVENT_COUNT, PAUSE_S = 18, 0.4

#: How long the finished picture is shown before it starts over.
LAST_S = 6.0

#: Columns of the terminal, and the prefix of names within the picture.
WIDTH, NAME = 78, "livestep"

#: How long to wait for the first prediction, which is not shown, and for each other one.
FIRST_TIMEOUT_S, TIMEOUT_S = 60.0, 10.0


class Recorder:
    """A terminal that keeps when each line was printed."""

    def __init__(self) -> None:
        self.console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
        self._started_s = time.monotonic()
        self.seconds: list[float] = []

    def print(self, line: Text) -> None:
        """Print a line."""
        self.console.print(line)
        self.seconds.append(time.monotonic() - self._started_s)


def train(directory: Path) -> None:
    """Save a net that has learnt how load and mode wear a machine out."""
    torch.manual_seed(0)
    net = GRU(input_size=3, hidden_size=16, output_size=1)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(600):
        load = torch.rand(30, 64, 1)  # (L, N, 1)
        mode = torch.eye(2)[torch.randint(2, (30, 64))]  # (L, N, 2)
        wear = torch.cumsum(load * (1 + mode[..., 1:]), dim=0) / 30
        loss = torch.nn.functional.mse_loss(net.unroll(torch.cat([load, mode], dim=2)), wear)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    inputs: list[Field] = [Number("load"), Category("mode", MODES)]
    save_model(net, directory, inputs=inputs, outputs=[Number("wear")])


def predict_live(services: LocalServices, recorder: Recorder) -> None:
    """Publish events one by one, and print each prediction when it arrives."""
    events = random.Random(0)
    servers = services.bootstrap_servers
    with (
        EventPublisher(servers, INPUT_TOPIC) as publisher,
        PredictionReader(servers, OUTPUT_TOPIC, from_beginning=True) as reader,
    ):
        publisher.publish("warm-up", {"load": 0.5, "mode": "eco"})
        publisher.flush()
        reader.read(timeout_s=FIRST_TIMEOUT_S, max_count=1)
        for line in HEAD:
            recorder.print(Text(line, style="bold"))
        for _ in range(EVENT_COUNT):
            key, mode = events.choice(MACHINES), events.choice(MODES)
            load = round(events.random(), 2)
            sent_s = time.monotonic()
            publisher.publish(key, {"load": load, "mode": mode})
            publisher.flush()
            (prediction,) = reader.read(timeout_s=TIMEOUT_S, max_count=1)
            after_ms = (time.monotonic() - sent_s) * 1000
            recorder.print(
                Text.assemble(
                    (f"{prediction.key}", "bold cyan"),
                    (f"  timestep {prediction.timestep}  ", "dim"),
                    f"load {load:.2f}  {mode:<5}",
                    ("  ->  ", "dim"),
                    (f"wear {prediction.value['wear']:.3f}", "bold green"),
                    (f"   after {after_ms:3.0f} ms", "dim"),
                )
            )
            time.sleep(PAUSE_S)


def animated(svg: str, seconds: Sequence[float], last_s: float = LAST_S) -> str:
    """Show each line of a terminal's picture when it was printed, and start over at the end.

    Args:
        svg: As rich exports it: the text of line i is clipped by `url(#livestep-line-i)`.
        seconds: When each line was printed, since the first one.
        last_s: How long the finished picture is shown.

    Returns:
        svg: The same with a style sheet; without animations, all lines are shown.

    Raises:
        ValueError: If the picture has no style sheet to add to.
    """
    total_s = seconds[-1] + last_s
    rules = []
    for index, second in enumerate(seconds):
        share = 100 * second / total_s
        rules.append(
            f"@keyframes {NAME}-show-{index} {{ 0%, {share:.2f}% {{ opacity: 0 }} "
            f"{share + 0.01:.2f}%, 100% {{ opacity: 1 }} }}\n"
            f'[clip-path="url(#{NAME}-line-{index})"] '
            f"{{ animation: {NAME}-show-{index} {total_s:.2f}s infinite }}"
        )
    before, end, after = svg.partition("</style>")
    if not end:
        raise ValueError("the picture has no style sheet")
    return f"{before}{chr(10).join(rules)}\n{end}{after}"


def main() -> None:
    """Run everything once, and write the picture."""
    with tempfile.TemporaryDirectory() as folder, local_services() as services:
        directory = Path(folder)
        train(directory / "wear-model")
        topics = [INPUT_TOPIC, OUTPUT_TOPIC, f"{INPUT_TOPIC}.dead-letter"]
        create_topics(services.bootstrap_servers, topics, 1)
        flags = ["--model", str(directory / "wear-model")]
        flags += ["--input-topic", INPUT_TOPIC, "--output-topic", OUTPUT_TOPIC]
        worker = WorkerProcess("worker", services, directory, flags)
        worker.start()
        try:
            worker.wait_for_partitions()
            recorder = Recorder()
            predict_live(services, recorder)
        finally:
            worker.stop()
    first_s = recorder.seconds[0]
    svg = recorder.console.export_svg(title="livestep", unique_id=NAME)
    svg = animated(svg, [second - first_s for second in recorder.seconds])
    PICTURE.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
