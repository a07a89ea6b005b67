"""What differs in two nets of one class: for the words of an error, not for a verdict."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: What torch keeps in each module: not the user's attributes.
_OWN_OF_TORCH = {*vars(nn.Module()), "_compiled_call_impl"}

_HOOKS = {"_forward_hooks": "forward hook", "_forward_pre_hooks": "forward pre-hook"}

#: How many differences are named, how long a value may be, and how deep objects are looked into.
_NAMED, _VALUE_CHARACTERS, _DEPTH = 5, 40, 4


def is_same_tensor(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape, dtype and bits; a NaN is as good as another."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one, other) or bool(
        ((one == other) | ((one != one) & (other != other))).all()
    )


def changed_tensors(before: nn.Module, after: nn.Module) -> list[str]:
    """Name the weights and persistent buffers that differ.

    Args:
        before: On any device.
        after: A copy of it, on the CPU, that was stepped since.
    """
    old = before.state_dict()
    return [
        name
        for name, tensor in after.state_dict().items()
        if name in old and not is_same_tensor(old[name].cpu(), tensor)
    ]


def differences(given: nn.Module, loaded: nn.Module) -> list[str]:
    """Say what two nets differ in beside their weights, the most important things at first.

    Args:
        given: On any device.
        loaded: Of the same class, or nearly.
    """
    others = dict(loaded.named_modules())
    found = []
    for path, module in given.named_modules():
        other = others.get(path)
        if other is None:
            found.append(f"{path} is no part of what would be loaded")
        elif type(module) is not type(other):
            kinds = type(module).__name__, type(other).__name__
            found.append(f"{path} is a {kinds[0]} as given, a {kinds[1]} as loaded")
        else:
            found.extend(_of_module(module, other, f"{path}." if path else ""))
    if len(found) > _NAMED:
        found = [*found[:_NAMED], f"and {len(found) - _NAMED} more"]
    return found


def left_out_arguments(kind: type, sizes: Mapping[str, Any]) -> list[str]:
    """Name the arguments of a constructor that were not given: they have their defaults."""
    parameters = inspect.signature(kind).parameters.values()
    names = [
        one.name
        for one in parameters
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and one.name not in sizes
    ]
    return [f"sizes() leaves out the arguments {', '.join(names)}"] if names else []


def _of_module(given: nn.Module, loaded: nn.Module, prefix: str) -> Iterator[str]:
    """Compare attributes, buffers and hooks of two modules, without what is in them."""
    one, other = vars(given), vars(loaded)
    for name in one:
        if name in _OWN_OF_TORCH:
            continue
        if name not in other:
            yield f"{prefix}{name} was set after construction ({_value(one[name])})"
        elif not _is_same(one[name], other[name]):
            yield f"{prefix}{name} is {_value(one[name])} as given, {_value(other[name])} as loaded"
    persistent = set(given.state_dict())
    buffers = dict(loaded.named_buffers(recurse=False))
    for name, buffer in given.named_buffers(recurse=False):
        if name in persistent:
            continue
        if name not in buffers or not _is_same(buffer, buffers[name]):
            yield f"the buffer {prefix}{name} differs and isn't stored: persistent=False"
    for kind, words in _HOOKS.items():
        hooks = [_value(hook) for hook in one[kind].values()]
        if len(hooks) != len(other[kind]):
            where = f" of {prefix.removesuffix('.')}" if prefix else ""
            yield f"a {words}{where} was registered after construction ({', '.join(hooks)})"


def _is_same(one: Any, other: Any, depth: int = 0) -> bool:
    """Whether two values are alike, as far as that can be seen."""
    if one is other or depth > _DEPTH:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return is_same_tensor(one.detach().cpu(), other.detach().cpu())
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and one.dtype == other.dtype and bool((one == other).all())
    if isinstance(one, nn.Module):
        return True  # compared as a part of the net
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(
            _is_same(one[key], other[key], depth + 1) for key in one
        )
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(_is_same(*pair, depth + 1) for pair in pairs)
    if callable(one) and hasattr(one, "__qualname__"):
        return bool(one.__qualname__ == other.__qualname__)
    if "__eq__" in _members(type(one)):
        try:
            return bool(one == other)
        except Exception:  # a weak reference to a tensor, a table: nothing can be said of it
            return True
    return _is_same(getattr(one, "__dict__", None), getattr(other, "__dict__", None), depth + 1)


def _members(kind: type) -> set[str]:
    """List what a type and its bases define, but for what every object has."""
    return {name for base in kind.__mro__ if base is not object for name in vars(base)}


def _value(value: Any) -> str:
    """Show a value, shortly."""
    if isinstance(value, Tensor | np.ndarray):
        return f"a {type(value).__name__} {tuple(value.shape)}"
    name = getattr(value, "__qualname__", None)
    text = name if isinstance(name, str) else repr(value)
    return text if len(text) <= _VALUE_CHARACTERS else text[: _VALUE_CHARACTERS - 3] + "..."
