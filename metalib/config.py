"""``params.yaml`` and ``machine.yaml`` as frozen, validated settings. A mistake is refused before any work."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from metalib.errors import MetalibError

Scale = Literal["quick", "default", "paper"]
SCALES: tuple[str, ...] = get_args(Scale)


class ConfigError(MetalibError):
    """A settings file is missing, unreadable, or holds a value that is not allowed."""


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] < bounds[1]:
        raise ValueError("the first number must be below the second")
    return bounds


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise ValueError("the values must differ from each other")
    return values


def _worker_count(value: int | Literal["auto"]) -> int | Literal["auto"]:
    if value != "auto" and not 1 <= value <= 1024:
        raise ValueError("should be auto or a number from 1 to 1024")
    return value


Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Number = Annotated[float, Field(strict=True, ge=-1e6, le=1e6, allow_inf_nan=False)]
Points = Annotated[int, Field(strict=True, ge=1, le=100_000)]
Tasks = Annotated[int, Field(strict=True, ge=2, le=20_000)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
InnerSteps = Annotated[int, Field(strict=True, ge=1, le=1000)]
Shot = Annotated[int, Field(strict=True, ge=1, le=1000)]
Width = Annotated[int, Field(strict=True, ge=1, le=10_000)]
NotNegative = Annotated[float, Field(strict=True, ge=0, le=180, allow_inf_nan=False)]
WayName = Annotated[str, Field(pattern=r"^[1-9][0-9]*-way$")]
ShotName = Annotated[str, Field(pattern=r"^[1-9][0-9]*-shot$")]
Range = Annotated[tuple[Number, Number], AfterValidator(_ascending)]
Shots = Annotated[tuple[Shot, ...], Field(min_length=1), AfterValidator(_distinct)]
Ways = Annotated[
    tuple[Annotated[int, Field(strict=True, ge=2, le=1000)], ...], Field(min_length=1), AfterValidator(_distinct)
]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_distinct)]
Positives = Annotated[tuple[Positive, ...], Field(min_length=1), AfterValidator(_distinct)]


class Section(BaseModel):
    """A section of settings: unknown keys, wrong types and later changes are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkSettings(Section):
    """The learner of every method."""

    hidden: Annotated[tuple[Width, ...], Field(min_length=1)]
    initial_std: Positive


class GenerateTasksSettings(Section):
    """The task distribution, and how many tasks are frozen for validation and test."""

    seed: Seed
    amplitude: Range
    phase: Range
    x: Range
    support_points: Points
    validation_tasks: Tasks
    test_tasks: Tasks
    query_points: Points


class GradientDescentRuleSettings(Section):
    """The update rule of MAML; theta_0 alone is learned, on the whole support, without bounds on the gradient."""

    inner_rate: Positive
    first_order: StrictBool

    inner_batch: ClassVar[Literal["all"]] = "all"
    learned_start: ClassVar[bool] = True
    clip_norm: ClassVar[None] = None


class LSTMRuleSettings(Section):
    """The LSTM meta-learner as update rule."""

    hidden_size: Annotated[int, Field(strict=True, ge=1, le=1000)]
    feedback: Literal["gates", "logits"]
    first_order: StrictBool
    learned_start: StrictBool
    inner_batch: Points | Literal["all"]
    clip_norm: Positive


class MetaTrainSettings(GradientDescentRuleSettings):
    """The inner and outer loop of MAML on sinusoids."""

    shots: Shots
    inner_steps: InnerSteps
    meta_batch: Points
    learning_rate: Positive
    meta_steps: Count
    seeds: Seeds


class MetaTrainLSTMSettings(LSTMRuleSettings):
    """The inner and outer loop of the LSTM meta-learner on sinusoids."""

    shots: Shots
    inner_steps: InnerSteps
    meta_batch: Points
    learning_rate: Positive
    meta_steps: Count
    seeds: Seeds


class GenerateImageTasksSettings(Section):
    """Which images, their classes, and how many episodes are frozen for validation and test."""

    dataset: Literal["glyphs", "omniglot", "miniimagenet"]
    folder: str
    seed: Seed
    max_rotation: NotNegative
    max_scale: NotNegative
    max_shear: NotNegative
    max_shift: NotNegative
    rotated_classes: StrictBool
    queries: Shot
    ways: Ways
    shots: Shots
    validation_episodes: Tasks
    test_episodes: Tasks


class ImageNetworkSettings(Section):
    """The learner of every few-shot image method."""

    kind: Literal["conv4", "fully_connected"]
    downsample: Literal["stride", "max_pool"]
    hidden: Annotated[tuple[Width, ...], Field(min_length=1)]
    initial_std: Positive
    filters: Annotated[int, Field(strict=True, ge=1, le=1024)]


class MetaTrainClassifierSettings(Section):
    """The inner and outer loop of MAML on few-shot images; some settings depend on the number of classes."""

    inner_rate: Annotated[dict[WayName, Positive], Field(min_length=1)]
    inner_steps: Annotated[dict[WayName, InnerSteps], Field(min_length=1)]
    first_order: StrictBool
    learning_rate: Positive
    meta_batch: Annotated[dict[WayName, Points], Field(min_length=1)]
    meta_steps: Count
    seeds: Seeds

    def at(self, way: int, shot: int) -> "ClassifierAt":
        """Return the settings of N-way K-shot classification."""
        key = f"{way}-way"
        return ClassifierAt(
            GradientDescentRuleSettings(inner_rate=self.inner_rate[key], first_order=self.first_order),
            self.inner_steps[key],
            self.meta_batch[key],
        )


class MetaTrainClassifierLSTMSettings(LSTMRuleSettings):
    """The inner and outer loop of the LSTM meta-learner on few-shot images; T depends on the shot."""

    inner_steps: Annotated[dict[ShotName, InnerSteps], Field(min_length=1)]
    meta_batch: Points
    learning_rate: Positive
    meta_steps: Count
    seeds: Seeds

    def at(self, way: int, shot: int) -> "ClassifierAt":
        """Return the settings of N-way K-shot classification."""
        return ClassifierAt(self, self.inner_steps[f"{shot}-shot"], self.meta_batch)


class ClassifierAt(NamedTuple):
    """Settings of N-way K-shot meta-training: the update ``rule``, its ``inner_steps``, episodes a meta-step."""

    rule: GradientDescentRuleSettings | LSTMRuleSettings
    inner_steps: int
    meta_batch: int


class TrainClassifierBaselineSettings(Section):
    """Training of the pretrained classifier on all classes, and of the prototypical network on episodes."""

    learning_rate: Positive
    images: Points
    episodes: Points
    pretrained_steps: Count
    prototypical_steps: Count
    seeds: Seeds


class EvaluateClassifierSettings(Section):
    """Adaptation to held-out classes."""

    gradient_steps: Annotated[int, Field(strict=True, ge=1, le=100)]
    finetune_rates: Positives


class TrainBaselineSettings(Section):
    """Training without an inner loop: pretrained and oracle."""

    meta_batch: Points
    points: Points
    learning_rate: Positive
    steps: Count
    seeds: Seeds


class EvaluateSettings(Section):
    """Adaptation on held-out tasks."""

    shots: Shots
    gradient_steps: Annotated[int, Field(strict=True, ge=1, le=100)]
    finetune_rates: Positives
    diverged_above: Positive


class ReportSettings(Section):
    """Statistics of tables and figures."""

    seed: Seed
    bootstrap_samples: Annotated[int, Field(strict=True, ge=100, le=20_000)]
    target_errors: Positives


class Params(Section):
    """All settings of one scale, as the stages use them."""

    scale: Scale
    network: NetworkSettings
    generate_tasks: GenerateTasksSettings
    meta_train: MetaTrainSettings
    meta_train_lstm: MetaTrainLSTMSettings
    train_baseline: TrainBaselineSettings
    evaluate: EvaluateSettings
    generate_image_tasks: GenerateImageTasksSettings
    image_network: ImageNetworkSettings
    meta_train_classifier: MetaTrainClassifierSettings
    meta_train_classifier_lstm: MetaTrainClassifierLSTMSettings
    train_classifier_baseline: TrainClassifierBaselineSettings
    evaluate_classifier: EvaluateClassifierSettings
    report: ReportSettings


class MachineSettings(Section):
    """How this machine is used; nothing here changes what is computed beyond rounding, and DVC ignores it."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    backend: Literal["auto", "compiled", "eager"] = "auto"
    workers: Annotated[int | Literal["auto"], AfterValidator(_worker_count)] = "auto"
    checkpoint_seconds: Annotated[float, Field(strict=True, ge=0, le=86_400)] = 30.0


def load_params(path: Path) -> Params:
    """Return the validated settings of the scale that the file chooses.

    Every scale of the file is checked, so that a mistake in another scale or in the last stage's section
    does not surface after hours of work.

    Raises:
        ConfigError: the file is missing or not YAML; a key is unknown, missing or stands twice; a value
            is of the wrong type or out of range; two settings contradict each other.
    """
    raw = _read_yaml(path)
    scales = raw.pop("scales", None)
    chosen = raw.pop("scale", None)
    if not isinstance(scales, Mapping) or set(scales) != set(SCALES):
        raise ConfigError(f"{path}: scales: must hold exactly the sections {', '.join(SCALES)}")
    if chosen not in SCALES:
        raise ConfigError(
            f"{path}: scale: {chosen!r} is not allowed; allowed: {', '.join(SCALES)}{_hint(chosen, SCALES)}"
        )
    resolved: dict[str, Params] = {}
    for scale in SCALES:
        merged = _merge(path, raw, scale, scales[scale])
        resolved[scale] = _validate(Params, merged, path, scale, scales[scale])
        _refuse_contradictions(path, scale, resolved[scale])
        _refuse_missing_conditions(path, scale, resolved[scale])
    return resolved[chosen]


def load_machine(path: Path) -> MachineSettings:
    """Return how to use this machine: ``machine.yaml``, overridden by ``METALIB_DEVICE`` and the like.

    Raises:
        ConfigError: a key is unknown or a value is not allowed.
    """
    raw = _read_yaml(path) if path.exists() else {}
    for key in MachineSettings.model_fields:
        value = os.environ.get(f"METALIB_{key.upper()}")
        if value is not None:
            raw[key] = int(value) if value.isdigit() else value
    return _validate(MachineSettings, raw, path)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = YAML(typ="safe").load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); run from the project's root") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold named sections, got {type(raw).__name__}")
    return raw


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
        problems = [_explain(model, detail, scale, counts or {}) for detail in error.errors()]
        raise ConfigError(f"{path}: " + "; ".join(problems)) from error


_ALLOWED = {
    "tuple_type": "should be a list, such as [1, 2]",
    "too_short": "should be a list of more values",
    "too_long": "should be a list of fewer values",
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "bool_type": "should be true or false",
}


def _explain(model: type[Section], detail: ErrorDetails, scale: str, counts: Mapping[str, Any]) -> str:
    """Return one line: the key, what was given, what is allowed, the nearest known key for a misspelling."""
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location)
    if len(location) > 1 and location[1] in counts.get(location[0], {}):
        key = f"scales.{scale}.{key}"
    section = _section_at(model, location[:-1])
    known = list(section.model_fields) if section else []
    match detail["type"]:
        case "extra_forbidden":
            return f"{key}: unknown key; known: {', '.join(known)}{_hint(location[-1], known)}"
        case "missing":
            return f"{key}: is missing; add it to its section, or to scales.{scale} if it is a count"
        case kind:
            message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
            return f"{key}: {detail['input']!r} is not allowed: {_ALLOWED.get(kind, message)}"


def _section_at(model: type[Section], location: list[str]) -> type[Section] | None:
    for part in location:
        field = model.model_fields.get(part)
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, Section)):
            return None
        model = annotation
    return model


def _hint(given: Any, known: Any) -> str:
    nearest = difflib.get_close_matches(str(given), list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def _refuse_contradictions(path: Path, scale: str, params: Params) -> None:
    tasks = params.generate_tasks
    most = max(params.evaluate.shots)
    # query_points must be more: at K points the two query sets of an evaluation would be one.
    for key, available in (("support_points", tasks.support_points), ("query_points", tasks.query_points - 1)):
        if most > available:
            raise ConfigError(
                f"{path}: evaluate.shots: {most} is more than generate_tasks.{key} allows, {available} "
                f"(scale {scale}); "
                f"lower the one or raise the other"
            )
    for section in ("meta_train", "meta_train_lstm"):
        trained = getattr(params, section).shots
        if not set(trained) & set(params.evaluate.shots):
            raise ConfigError(
                f"{path}: evaluate.shots: {list(params.evaluate.shots)} shares no K with {section}.shots = "
                f"{list(trained)}; test at least one K that is trained"
            )
    batch, fewest = params.meta_train_lstm.inner_batch, min(*params.meta_train_lstm.shots, *params.evaluate.shots)
    if batch != "all" and batch > fewest:
        raise ConfigError(
            f"{path}: meta_train_lstm.inner_batch: {batch} is more than the smallest K, {fewest} (scale {scale}); "
            "lower it, or set it to all"
        )


def _refuse_missing_conditions(path: Path, scale: str, params: Params) -> None:
    """Refuse an N or K of the image tasks for which a meta-learner has no setting."""
    tasks, maml = params.generate_image_tasks, params.meta_train_classifier
    by_way: dict[str, Mapping[str, Any]] = {
        "inner_rate": maml.inner_rate,
        "inner_steps": maml.inner_steps,
        "meta_batch": maml.meta_batch,
    }
    needed: list[tuple[str, str, Mapping[str, Any], str]] = [
        ("meta_train_classifier", key, given, f"{way}-way") for way in tasks.ways for key, given in by_way.items()
    ]
    lstm = params.meta_train_classifier_lstm
    needed += [("meta_train_classifier_lstm", "inner_steps", lstm.inner_steps, f"{shot}-shot") for shot in tasks.shots]
    for section, key, given, name in needed:
        if name not in given:
            raise ConfigError(
                f"{path}: {section}.{key}: lacks {name}, which generate_image_tasks asks for (scale {scale}); "
                f"it has: {', '.join(given)}; add {name}"
            )
