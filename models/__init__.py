"""Models: nets, the meaning of their inputs and outputs, and how they are stored and checked.

Knows torch, and neither Kafka nor Redis. Each room imports from the rooms below it only:

    examples/     a model on real data for each shape of sequence, and the room-mate who cooks
    disk/         save_model, load_model: model.json and the weights
    checks/       what every model has to hold, and the report of it
    foreign/      classes of users, TorchScript, exported programs
    nets/         VanillaRNN, GRU, LSTM, and nets made of them
    sequences/    shapes, feedback, generation, and the offline truth
    fields/       Number, Category, Text: what the columns of inputs and outputs mean
    contract.py   StepModel: what the engine knows of a model
"""
