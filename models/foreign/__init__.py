"""Models that come from elsewhere: users' classes, TorchScript, exported programs."""
