"""Code that users bring: their classes, TorchScript, exported programs. It runs only if allowed.

class_imports.py    imports package.module:Class, if the package is allowed
user_classes.py     AdaptedModel: a user's class as a StepModel
file_kinds.py       what a program file is, found from its bytes
archive_checks.py   checks an exported program before torch opens it
program_reading.py  Program: a program, read, with its signature
program_states.py   the state tensors of a program
program_batches.py  how many keys a program accepts per call
program_model.py    ProgramModel: a program as a StepModel
step_adapter.py     what both adapters share: each result is checked
trial_step.py       one step in several batch sizes, before a model is saved or used
foreign_errors.py   what foreign code raises, as ModelError
"""
