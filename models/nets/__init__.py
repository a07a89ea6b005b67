"""Nets of this package, which `model.json` can name by class.

An engine needs nothing of them but `contract.StepModel`.

cells.py             VanillaRNN, GRU, LSTM
stateless.py         FullyConnected, Glimpses: keep nothing between timesteps
encoder_decoder.py   EncoderDecoder: reads with one GRU, writes with another
"""
