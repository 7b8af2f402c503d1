"""Checks across sections: settings that are fine one by one, but not together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metalib.config.errors import ConfigError
from metalib.config.params import Params


def refuse_contradictions(path: Path, scale: str, params: Params) -> None:
    """Refuse settings of one scale that contradict each other.

    Raises:
        ConfigError: naming the settings, their values, and how to mend it.
    """
    _refuse_too_few_points(path, scale, params)
    _refuse_untrained_shots(path, params)
    _refuse_unknown_ablation_shots(path, params)
    _refuse_large_inner_batch(path, scale, params)
    _refuse_missing_conditions(path, scale, params)


def _refuse_too_few_points(path: Path, scale: str, params: Params) -> None:
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


def _refuse_untrained_shots(path: Path, params: Params) -> None:
    for section in ("meta_train", "meta_train_lstm"):
        trained = getattr(params, section).shots
        if not set(trained) & set(params.evaluate.shots):
            raise ConfigError(
                f"{path}: evaluate.shots: {list(params.evaluate.shots)} shares no K with {section}.shots = "
                f"{list(trained)}; test at least one K that is trained"
            )


def _refuse_unknown_ablation_shots(path: Path, params: Params) -> None:
    for section in ("meta_train", "meta_train_lstm", "evaluate"):
        known = getattr(params, section).shots
        if params.ablation.shots not in known:
            raise ConfigError(
                f"{path}: ablation.shots: {params.ablation.shots} is not in {section}.shots = {list(known)}; "
                "name a K that is in all of meta_train.shots, meta_train_lstm.shots and evaluate.shots"
            )


def _refuse_large_inner_batch(path: Path, scale: str, params: Params) -> None:
    images = params.generate_image_tasks
    smallest = {
        "meta_train_lstm": min(*params.meta_train_lstm.shots, *params.evaluate.shots),
        "meta_train_classifier_lstm": min(images.ways) * min(images.shots),  # all classes of a support together
    }
    for section, fewest in smallest.items():
        batch = getattr(params, section).inner_batch
        if batch != "all" and batch > fewest:
            raise ConfigError(
                f"{path}: {section}.inner_batch: {batch} is more than the smallest support holds, {fewest} "
                f"(scale {scale}); lower it, or set it to all"
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
