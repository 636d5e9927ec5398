"""Settings of a stage as options of the command line: a preset's values, replaced where an option is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, field, fields, is_dataclass, make_dataclass, replace
from typing import Annotated, Any, TypedDict, TypeVar, get_type_hints

import tyro
from docstring_parser import parse_from_object

T = TypeVar("T")
NO_MATTER = frozenset({"device", "num_threads", "checkpoint_minutes"})
"""Settings of the machine, which decide no result."""


def options(presets: Mapping[str, Any], hidden: frozenset[str]) -> Any:
    """A type that tyro turns into one option per setting; what isn't given on the command line is absent.

    Args:
        presets: Settings by preset, dataclasses of one type. Their values and docstrings go into the help.
        hidden: Settings that aren't to be options.
    """
    one = next(iter(presets.values()))
    hints = get_type_hints(type(one), include_extras=True)
    entries = [entry for each in type(one).__mro__ if is_dataclass(each) for entry in parse_from_object(each).params]
    about = {entry.arg_name: " ".join((entry.description or "").split()) for entry in entries}
    found = {}
    for name in (item.name for item in fields(one) if item.name not in hidden):
        values = {preset: getattr(config, name) for preset, config in presets.items()}
        if is_dataclass(getattr(one, name)):
            found[name] = Annotated[options(values, hidden), tyro.conf.arg(help=about.get(name))]
        else:
            hint = f"({'; '.join(_by_value(values))})"
            found[name] = Annotated[hints[name], tyro.conf.arg(help=about.get(name), help_behavior_hint=hint)]
    return typed_dict(type(one).__name__, found)


def typed_dict(name: str, types: dict[str, Any]) -> Any:
    """A type of mappings in which every key may be absent."""
    make: Any = TypedDict
    return make(name, types, total=False)


def with_options(stage: type, options: Any, about_name: str | None = None) -> type:
    """A stage as tyro is to see it: its `settings` are options without a prefix, and its name has this help."""
    kind: Any = Annotated[options, tyro.conf.arg(name="")]
    members: list[Any] = [("settings", kind, field(default_factory=dict))]
    if about_name is not None:
        members.insert(0, ("name", Annotated[tyro.conf.Positional[str], tyro.conf.arg(help=about_name)]))
    return make_dataclass(stage.__name__, members, bases=(stage,), kw_only=True)


def _by_value(values: Mapping[str, Any]) -> Iterator[str]:
    """Words such as "cpu: 64" and "fast, paper: 1024"."""
    texts = {preset: str(value) for preset, value in values.items()}
    for text in dict.fromkeys(texts.values()):
        owners = [preset for preset in texts if texts[preset] == text]
        yield f"default: {text}" if len(owners) == len(texts) else f"{', '.join(owners)}: {text}"


def changed(config: T, settings: Mapping[str, Any]) -> T:
    """Settings with some of them replaced; nested ones are mappings in `settings`."""
    new: dict[str, Any] = {
        name: changed(getattr(config, name), value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
    }
    return replace(config, **new)  # type: ignore[type-var]


def on_device(config: T, device: str | None) -> T:
    """Settings with every `device` in them replaced; None leaves them as they are."""
    if device is None:
        return config
    new: dict[str, Any] = {"device": device} if hasattr(config, "device") else {}
    for name in (item.name for item in fields(config)):  # type: ignore[arg-type]
        if is_dataclass(value := getattr(config, name)):
            new[name] = on_device(value, device)
    return replace(config, **new)  # type: ignore[type-var]


def that_matter(settings: Any) -> Any:
    """Settings, as JSON has them, that decide a result."""
    if is_dataclass(settings):
        settings = asdict(settings)  # type: ignore[arg-type]
    if isinstance(settings, Mapping):
        return {name: that_matter(value) for name, value in settings.items() if name not in NO_MATTER}
    return [that_matter(value) for value in settings] if isinstance(settings, (tuple, list)) else settings
