"""1. A sequence may be split anywhere: the hidden state carries what came before.

This is what makes live prediction possible: the model need not see the whole sequence at once.
"""

import torch

from livestep import GRU, TOLERANCE


def test_stepping_on_from_a_state_equals_the_whole_sequence():
    # Given a model, and a sequence of ten timesteps
    torch.manual_seed(0)
    model = GRU(input_size=3, hidden_size=8, output_size=2).eval()
    sequence = torch.randn(10, 1, 3)  # (L, N, H_in)

    # When the whole is unrolled offline, and when it is stepped one event after the other
    truth = model.unroll(sequence)
    state = model.initial_state(batch_size=1)
    outputs = []
    for inputs in sequence:
        output, state = model.step(inputs, state)
        outputs.append(output)

    # Then both say the same
    difference = (torch.stack(outputs) - truth).abs().max()
    assert difference < TOLERANCE[torch.float32]
