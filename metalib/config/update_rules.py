"""Settings of update rules, which several experiments share."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StrictBool

from metalib.config.fields import Points, Positive, Range, Section


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
    input_bias: Range
    inner_batch: Points | Literal["all"]
    clip_norm: Positive
