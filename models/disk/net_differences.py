"""What differs between two nets of one class: for the text of an error, not for a check."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from livestep.models.model_errors import ModelError

#: Attributes of torch in each module, and the copies of weights in an RNN: not the user's.
_OWN_OF_TORCH = {*vars(nn.Module()), "_compiled_call_impl", "_flat_weights"}

#: Functions that undo the older norms, which are hooks.
_NORMS: Final = {WeightNorm: "remove_weight_norm", SpectralNorm: "remove_spectral_norm"}

_HOOKS = {"_forward_hooks": "forward hook", "_forward_pre_hooks": "forward pre-hook"}

#: How many differences are listed, how long a value may be, and how deep objects are compared.
_NAMED, _VALUE_CHARACTERS, _DEPTH = 5, 40, 4


class Arguments(NamedTuple):
    """The arguments with which a class is called when it is loaded.

    Attributes:
        values: By name.
        source: Where they are from: `sizes=` of the caller, `sizes()` of the class, or nothing.
    """

    values: Mapping[str, Any]
    source: str


class _Difference(NamedTuple):
    """A difference of two nets, and whether it was made after construction."""

    text: str
    is_made_later: bool = False


def is_same_tensor(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape, dtype and values; all NaN are equal."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one, other) or bool(
        ((one == other) | ((one != one) & (other != other))).all()
    )


def changed_tensors(before: nn.Module, after: nn.Module) -> list[str]:
    """Name the weights and persistent buffers that differ.

    Args:
        before: On any device.
        after: A copy of it, on the CPU, that was stepped.
    """
    old = before.state_dict()
    return [
        name
        for name, tensor in after.state_dict().items()
        if name in old and not is_same_tensor(old[name].cpu(), tensor)
    ]


def differences(given: nn.Module, loaded: nn.Module) -> list[str]:
    """Describe how two nets differ apart from their weights, the most important first.

    Args:
        given: On any device.
        loaded: Of the same class, or a similar one.
    """
    return _texts(_differences(given, loaded))


def causes(given: nn.Module, loaded: nn.Module, arguments: Arguments) -> list[str]:
    """Explain why the loaded net is not the given one, as far as that can be found.

    Args:
        given: On any device.
        loaded: Of the same class, made with the arguments.
        arguments: The arguments with which it was made.
    """
    if stored_otherwise := [text for _, text in _stored_otherwise(given, loaded)]:
        return stored_otherwise
    found = _differences(given, loaded)
    is_explained = any(one.is_made_later for one in found)
    return _texts(found) + _left_out(given, loaded, arguments, is_explained)


def explain_weights(
    error: ModelError, given: nn.Module, loaded: nn.Module, arguments: Arguments
) -> ModelError:
    """Add the cause to an error about weights that don't fit the module that would be loaded.

    Args:
        error: From `weight_checks.check_weights`.
        given: The model to be saved, on any device.
        loaded: Of the same class, made with the arguments.
        arguments: The arguments with which it was made.
    """
    if _tensor_shapes(given) == _tensor_shapes(loaded):
        return error
    for name, text in _stored_otherwise(given, loaded):
        return ModelError(text, field=name)
    found = causes(given, loaded, arguments)
    return ModelError(
        "; ".join([error.problem, *found]),
        field=error.field,
        expected=error.expected,
        found=error.found,
    )


def _tensor_shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def _stored_otherwise(given: nn.Module, loaded: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield weights that are computed from others only in the given net, and how to fix that.

    Yields:
        name, text: Of each weight.
    """
    as_loaded = dict(_computed_weights(loaded))
    for name, (how, way_out) in _computed_weights(given):
        if name not in as_loaded:
            yield (
                name,
                f"it is {how}, which the class itself doesn't do, so the loaded model would have "
                f"other tensors; make it permanent before saving: torch.nn.utils.{way_out}",
            )


def _computed_weights(module: nn.Module) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each weight that is computed from others: how, and what makes it permanent."""
    for path, inner in module.named_modules():
        prefix = f"{path}." if path else ""
        buffers = dict(inner.named_buffers(recurse=False))
        for original, _ in inner.named_parameters(recurse=False):
            name = original.removesuffix("_orig")
            if name != original and f"{name}_mask" in buffers:
                yield f"{prefix}{name}", ("pruned", f'prune.remove(module, "{name}")')
        for hook in vars(inner)["_forward_pre_hooks"].values():
            if way_out := _NORMS.get(type(hook)):
                how = f"computed by a {type(hook).__name__}"
                yield f"{prefix}{hook.name}", (how, f'{way_out}(module, "{hook.name}")')
        if parametrize.is_parametrized(inner):
            for name in inner.parametrizations:
                remove = f'parametrize.remove_parametrizations(module, "{name}")'
                yield f"{prefix}{name}", ("parametrized", remove)


def _texts(found: list[_Difference]) -> list[str]:
    texts = [one.text for one in found]
    if len(texts) > _NAMED:
        texts = [*texts[:_NAMED], f"and {len(texts) - _NAMED} more"]
    return texts


def _differences(given: nn.Module, loaded: nn.Module) -> list[_Difference]:
    others = dict(loaded.named_modules())
    found: list[_Difference] = []
    for path, module in given.named_modules():
        other = others.get(path)
        if other is None:
            found.append(_Difference(f"{path} is not part of what would be loaded"))
        elif type(module) is not type(other):
            kinds = type(module).__name__, type(other).__name__
            found.append(_Difference(f"{path} is a {kinds[0]} as given, a {kinds[1]} as loaded"))
        else:
            found.extend(_of_module(module, other, f"{path}." if path else ""))
    return found


def _left_out(
    given: nn.Module, loaded: nn.Module, arguments: Arguments, is_explained: bool
) -> list[str]:
    """List the arguments of the constructor that were not given, if they may be the cause.

    An argument that both nets keep under its name is a cause if its values differ. One that is not
    in the nets is unknown: it is listed if nothing else explains the difference.
    """
    names = [
        one.name
        for one in inspect.signature(type(loaded)).parameters.values()
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        and one.name not in arguments.values
    ]
    unknown, differing = [], []
    one = {**vars(given), **dict(given.named_children())}
    other = {**vars(loaded), **dict(loaded.named_children())}
    for name in names:
        if name not in one or name not in other:
            unknown.append(name)
        elif not _is_alike(one[name], other[name]):
            differing.append(name)
    if not differing and is_explained:
        return []
    if not (wanted := differing or unknown):
        return []
    words = f"the argument{'s' if len(wanted) > 1 else ''} {', '.join(wanted)}"
    if arguments.source:
        return [f"{arguments.source} omits {words}"]
    members = ", ".join(f'"{name}": ...' for name in wanted)
    return [
        f"{type(loaded).__name__} has no method sizes() and no sizes= was given, so it is loaded "
        f"with the defaults of {words}: save_model(..., sizes={{{members}}})"
    ]


def _is_alike(one: Any, other: Any) -> bool:
    if isinstance(one, nn.Module) and isinstance(other, nn.Module):
        return type(one) is type(other) and not _differences(one, other)
    return _is_same(one, other)


def _of_module(given: nn.Module, loaded: nn.Module, prefix: str) -> Iterator[_Difference]:
    """Compare attributes, buffers and hooks of two modules, but not of the modules inside."""
    one, other = vars(given), vars(loaded)
    for name in one:
        if name in _OWN_OF_TORCH:
            continue
        value = _value(one[name])
        if name not in other and callable(getattr(type(given), name, None)):
            text = f"the method {prefix}{name} was replaced after construction ({value})"
            yield _Difference(text, is_made_later=True)
        elif name not in other:
            text = f"{prefix}{name} was set after construction ({value})"
            yield _Difference(text, is_made_later=True)
        elif not _is_same(one[name], other[name]):
            text = f"{prefix}{name} is {value} as given, {_value(other[name])} as loaded"
            yield _Difference(text)
    persistent = set(given.state_dict())
    buffers = dict(loaded.named_buffers(recurse=False))
    for name, buffer in given.named_buffers(recurse=False):
        if name in persistent:
            continue
        if name not in buffers or not _is_same(buffer, buffers[name]):
            text = f"the buffer {prefix}{name} differs and isn't stored: persistent=False"
            yield _Difference(text)
    for kind, words in _HOOKS.items():
        hooks = [_value(hook) for hook in one[kind].values()]
        if len(hooks) != len(other[kind]):
            where = f" of {prefix.removesuffix('.')}" if prefix else ""
            text = f"a {words}{where} was registered after construction ({', '.join(hooks)})"
            yield _Difference(text, is_made_later=True)


def _is_same(one: Any, other: Any, depth: int = 0) -> bool:
    """Whether two values are equal, as far as that can be found."""
    if one is other or depth > _DEPTH:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        if one.is_meta or other.is_meta:  # a net of this package, before it has its weights
            return bool(one.shape == other.shape and one.dtype == other.dtype)
        return is_same_tensor(one.detach().cpu(), other.detach().cpu())
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and one.dtype == other.dtype and bool((one == other).all())
    if isinstance(one, nn.Module):
        return True  # compared as part of the net
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
        except Exception:  # a weak reference to a tensor, a table: unknown
            return True
    return _is_same(getattr(one, "__dict__", None), getattr(other, "__dict__", None), depth + 1)


def _members(kind: type) -> set[str]:
    """List what a type and its bases define, without what every object has."""
    return {name for base in kind.__mro__ if base is not object for name in vars(base)}


def _value(value: Any) -> str:
    """Return a short text of a value."""
    if isinstance(value, Tensor | np.ndarray):
        return f"a {type(value).__name__} {tuple(value.shape)}"
    name = getattr(value, "__qualname__", None)
    try:
        text = name if isinstance(name, str) else repr(value)
    except Exception:  # of a user's class
        text = f"a {type(value).__name__}"
    return text if len(text) <= _VALUE_CHARACTERS else text[: _VALUE_CHARACTERS - 3] + "..."
