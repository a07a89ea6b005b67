"""A model with the meaning of its numbers: what `load_model` returns and every worker runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from livestep.models.contract import StepModel
from livestep.models.devices import device_of
from livestep.models.fields.encoding import decode, encode
from livestep.models.fields.field_types import CodecName, Field, OutputField
from livestep.models.sequences.blocks import block_stepper
from livestep.models.sequences.offline_json import answer_log
from livestep.models.sequences.rules import DEFAULT_RULES, SequenceRules


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model and what its numbers mean.

    Attributes:
        net: The model, in eval mode, without gradients, on its device.
        inputs: What the H_in columns mean, side by side.
        outputs: What the H_out columns mean, side by side.
        codec: Format of a record's value: "json" or "float32".
        fingerprint: 16 hexadecimal characters that identify weights and meaning.
        name: Name of the directory, for display only.
        rules: How events form sequences, and what is answered.
    """

    net: StepModel
    inputs: tuple[Field, ...]
    outputs: tuple[OutputField, ...]
    codec: CodecName
    fingerprint: str
    name: str
    rules: SequenceRules = DEFAULT_RULES

    def unroll_events(self, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Predict one key's events offline, ignoring marks and feedback; see `answer_events`.

        Args:
            events: All events of one key, from its first, as decoded from JSON.

        Returns:
            predictions: One per event, as `encoding.decode` returns them.

        Raises:
            FieldError: If an event doesn't fit the inputs.
        """
        return decode(self.outputs, self.unroll_rows(encode(self.inputs, events)))

    def answer_events(
        self,
        events: Sequence[Mapping[str, Any] | None],
        key: str = "",
        timestamps_ms: Sequence[int] | None = None,
        offsets: Sequence[int] | None = None,
    ) -> list[dict[str, Any]]:
        """Answer one key's events offline by all rules, as if no other key shared its partition.

        A stream returns the same answers, equal bit for bit, on the same kind of processor and with
        the same version of torch.

        Args:
            events: All events of one key, from its first, with their marks as members; None is a
                tombstone. See `offline_json.answer_log`.
            key: Matters only if labels are drawn.
            timestamps_ms: Event times; needed only for a session gap.
            offsets: In the partition; by default 0, 1, 2... Matter only if labels are drawn.

        Returns:
            answers: `{"event": index, "timestep": t, "value": prediction}` each, with `step`,
                `finish` and `ended_by` where they apply.

        Raises:
            FieldError: If an event doesn't fit the inputs, or a mark is invalid.
        """
        log = [(key, event) for event in events]
        answers = answer_log(self, log, timestamps_ms, offsets)
        return [{name: answer[name] for name in answer if name != "key"} for answer in answers]

    @torch.inference_mode()
    def unroll_rows(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Predict one key's events offline, from and to arrays.

        Args:
            rows: (L, H_in) float32. All events of one key, from its first.

        Returns:
            outputs: (L, H_out) float32. Logits for a category, not yet activated.
        """
        if len(rows) == 0:
            return np.zeros((0, self.net.output_size), np.float32)
        device = device_of(self.net)
        copied = np.array(rows, np.float32)  # torch rejects read-only arrays, as records give them
        sequence = torch.from_numpy(copied).to(device).unsqueeze(1)  # (L, 1, H_in)
        unrolled = block_stepper(self.net, self.inputs).unroll(sequence).squeeze(1)
        outputs: npt.NDArray[np.float32] = unrolled.cpu().numpy()
        return outputs
