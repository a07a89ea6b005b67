"""Models on disk: a directory with `model.json` and weights or a program.

Start with `saving.py` and `loading.py`.

    saving.py             save_model, save_program
    loading.py            load_model
    model_json.py         ModelFile: what `model.json` describes
    model_files.py        read and replace files
    net_builder.py        from description and weights to a net that steps
    own_classes.py        the classes of this package that `model.json` can name
    safetensors_file.py   weights between a module and a file
    weight_checks.py      names, shapes, dtypes and values of weights
    fingerprint.py        the hash that identifies a model
    savable.py            which modules can be saved
    round_trip.py         a model is saved only if it would be loaded bit for bit the same
    net_differences.py    explains why it would not
"""
