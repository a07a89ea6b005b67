"""Models: nets, the meaning of their inputs and outputs, and how they are stored and checked.

Depends on torch, but neither on Kafka nor on Redis. Each part imports only from parts below it:

    examples/         a model on real data for each shape of sequence, and the roommate who cooks
    disk/             save_model and load_model: model.json and the weights
    checks/           the rules that every model has to keep, and a report for your own
    foreign/          classes of users, TorchScript, and exported programs
    nets/             VanillaRNN, GRU, LSTM, and nets built from them
    loaded_model.py   LoadedModel: a net with its fields, rules, and fingerprint
    sequences/        shapes of sequence, feedback, generation, and the answers computed offline
    fields/           Number, Category, Text: the columns of inputs and outputs
    contract.py       StepModel: the interface between the engine and a net

The remaining modules are at the level of `contract.py`: errors, devices, rounding, seeds, package
data.
"""
