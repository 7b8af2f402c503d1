"""Settings files, read, merged and validated."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from metalib.config.contradictions import refuse_contradictions
from metalib.config.errors import ConfigError
from metalib.config.explaining import explain, hint
from metalib.config.fields import Section
from metalib.config.machine import MachineSettings
from metalib.config.params import SCALES, Params


def load_params(path: Path) -> Params:
    """Return the validated settings of the scale that the file chooses.

    Every scale of the file is checked, so that a mistake in another scale or in the last stage's section
    does not surface after hours of work.

    Raises:
        ConfigError: the file is missing or not YAML; a key is unknown, missing or stands twice; a value
            is of the wrong type or out of range; two settings contradict each other.
    """
    raw = _read_yaml(path)
    _refuse_other_than_sections(path, raw)
    scales = raw.pop("scales", None)
    chosen = raw.pop("scale", None)
    if not isinstance(scales, Mapping) or set(scales) != set(SCALES):
        raise ConfigError(f"{path}: scales: must hold exactly the sections {', '.join(SCALES)}")
    if chosen not in SCALES:
        raise ConfigError(
            f"{path}: scale: {chosen!r} is not allowed; allowed: {', '.join(SCALES)}{hint(chosen, SCALES)}"
        )
    resolved: dict[str, Params] = {}
    for scale in SCALES:
        merged = _merge(path, raw, scale, scales[scale])
        resolved[scale] = _validate(Params, merged, path, scale, scales[scale])
        refuse_contradictions(path, scale, resolved[scale])
    return resolved[chosen]


def load_machine(path: Path) -> MachineSettings:
    """Return how to use this machine: ``machine.yaml``, overridden by ``METALIB_DEVICE`` and the like.

    Raises:
        ConfigError: a key is unknown or a value is not allowed.
    """
    raw = (_read_yaml(path) or {}) if path.exists() else {}  # all comments: nothing is set
    _refuse_other_than_sections(path, raw)
    for key in MachineSettings.model_fields:
        name = f"METALIB_{key.upper()}"
        if name in os.environ:
            raw[key] = _yaml(os.environ[name], name)
    return _validate(MachineSettings, raw, path)


def _read_yaml(path: Path) -> Any:
    try:
        return _yaml(path.read_text(), str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); run from the project's root") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error


def _yaml(text: str, name: str) -> Any:
    try:
        return YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from error


def _refuse_other_than_sections(path: Path, raw: Any) -> None:
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold named sections, got {type(raw).__name__}")


def _merge(path: Path, shared: Mapping[str, Any], scale: str, counts: Any) -> dict[str, Any]:
    """Return the shared sections with the counts of one scale added; a key must stand in one place only."""
    if not isinstance(counts, Mapping):
        raise ConfigError(f"{path}: scales.{scale}: must hold sections, got {counts!r}")
    merged: dict[str, Any] = {"scale": scale, **shared}
    for section, values in counts.items():
        base = shared.get(section, {})
        if isinstance(base, Mapping) and isinstance(values, Mapping):
            for key in sorted(set(base) & set(values)):
                raise ConfigError(
                    f"{path}: {section}.{key}: stands twice, there and in scales.{scale}.{section}.{key}; "
                    f"counts belong to their scale: remove {section}.{key}"
                )
            merged[section] = {**base, **values}
        else:
            merged[section] = values
    return merged


S = TypeVar("S", bound=Section)


def _validate(
    model: type[S],
    raw: Mapping[str, Any],
    path: Path,
    scale: str = "",
    counts: Mapping[str, Any] | None = None,
) -> S:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = [explain(model, detail, scale, counts or {}) for detail in error.errors()]
        raise ConfigError(f"{path}: " + "; ".join(problems)) from error
