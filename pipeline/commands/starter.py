"""The files that `livestep model init` writes: the smallest model of your own, ready to run."""

from __future__ import annotations

import json
import math
from pathlib import Path

from livestep.pipeline.errors import ConfigError

_MY_MODEL = '''\
"""A model of your own: any torch.nn.Module with `initial_state` and `step`."""

import torch
from torch import Tensor, nn


class Forecast(nn.Module):
    """Predicts the next value of a sensor from all of its values so far."""

    def __init__(self, hidden_size: int = 16) -> None:
        super().__init__()
        self.cell = nn.GRUCell(1, hidden_size)
        self.head = nn.Linear(hidden_size, 1)

    def initial_state(self, batch_size: int) -> Tensor:
        """The state of new keys; axis 0 is the key. May be a tuple of tensors of any dtypes."""
        return self.head.weight.new_zeros(batch_size, self.cell.hidden_size)  # (N, H)

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Advance each row, one key, by one event: (N, H_in) in, (N, H_out) out."""
        state = self.cell(inputs, state)
        return inputs + self.head(state), state


def unroll(model: nn.Module, sequences: Tensor) -> Tensor:
    """Step through sequences (L, N, H_in), for training."""
    state = model.initial_state(sequences.shape[1])
    outputs = []
    for inputs in sequences:
        output, state = model.step(inputs, state)
        outputs.append(output)
    return torch.stack(outputs)
'''

_TRAIN = '''\
"""Train the model, in seconds, and write the directory for the worker."""

from pathlib import Path

import torch
from my_model import Forecast, unroll

from livestep import Number, save_model

torch.manual_seed(0)
model = Forecast(hidden_size=16)
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
times = torch.arange(25).reshape(25, 1, 1)
for _ in range(150):
    # 64 sensors, each with its own wave.
    waves = torch.sin(0.4 * times + 6.3 * torch.rand(1, 64, 1))  # (25, 64, 1)
    loss = torch.nn.functional.mse_loss(unroll(model, waves[:-1]), waves[1:])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

save_model(
    model,
    Path(__file__).with_name("model"),
    inputs=[Number("value")],
    outputs=[Number("next_value")],
    sizes={"hidden_size": 16},
)
print(f"trained: mean squared error {loss.item():.5f}; saved in model")
'''

_TEST = '''\
"""The model can be stepped live, and has learned something."""

import json
from pathlib import Path

from livestep import check_model, load_model

HERE = Path(__file__).parent
MODEL = load_model(HERE / "model", allowed_packages=["my_model"])


def test_the_model_can_be_stepped_live() -> None:
    check_model(MODEL)


def test_the_model_predicts_the_next_value() -> None:
    lines = (HERE / "events.jsonl").read_text().splitlines()
    events = [event for event in map(json.loads, lines) if event["sensor"] == "s-1"]
    values = [event["value"] for event in events]
    predictions = MODEL.unroll_events([{"value": value} for value in values])
    errors = [
        abs(prediction["next_value"] - value)
        for prediction, value in zip(predictions[5:-1], values[6:], strict=True)
    ]
    assert max(errors) < 0.2
'''

_README = """\
# A model of your own, live

You need Kafka and Redis. Livestep's `make services` starts both in another terminal; paste the
`export` lines that it prints here.

```bash
python train.py
export LIVESTEP_MODEL_PACKAGES=my_model
livestep model check model
pytest -q test_my_model.py
livestep topics create sensors --with-dead-letter
livestep topics create next-values
livestep publish events.jsonl --topic sensors --key sensor
livestep worker --model model --input-topic sensors --output-topic next-values --burst
livestep predictions --topic next-values --from-beginning --max 3
```

`LIVESTEP_MODEL_PACKAGES` allows livestep to import `my_model.py` from the current folder. Without
`--burst` the worker runs until Ctrl-C. After you change `my_model.py`, train again: `livestep model
check model` reports what breaks live stepping, and how to fix it.
"""


def starter_files() -> dict[str, str]:
    """Return the text of each file by name."""
    return {
        "my_model.py": _MY_MODEL,
        "train.py": _TRAIN,
        "events.jsonl": _events(),
        "test_my_model.py": _TEST,
        "README.md": _README,
    }


def write_starter(folder: Path) -> list[str]:
    """Write the files to a folder, which is created if missing.

    Returns:
        names: The names of the files.

    Raises:
        ConfigError: If one of them exists; nothing was written.
        OSError: If the folder can't be written.
    """
    files = starter_files()
    for name in files:
        if (folder / name).exists():
            raise ConfigError(f"{folder / name} already exists; nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return list(files)


def _events() -> str:
    """Two sensors in turns, each with its own wave."""
    lines = []
    for time in range(20):
        for sensor, phase in (("s-1", 0.0), ("s-2", 2.0)):
            value = round(math.sin(0.4 * time + phase), 4)
            lines.append(json.dumps({"sensor": sensor, "value": value}))
    return "\n".join(lines) + "\n"
