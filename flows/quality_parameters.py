"""How good codes have to be to be published."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.parameter_base import CatalogParameters, Parameters
from flows.runner_parameters import RunnerParameters
from rshash.drift import DriftLimits
from rshash.quality import Thresholds

_DEFAULTS, _DRIFT = Thresholds(), DriftLimits()


class QualityParameters(Parameters):
    """The quality gate: what codes must fulfil, and what happens to those that do not."""

    box_title = "Quality gate"
    box_key = "quality_gate"

    minimum_distinct: int = Field(
        _DEFAULTS.distinct,
        ge=1,
        title="Minimum of distinct codes",
        description="Quality gate: codes that collapse to fewer are not published. Of few tiles a "
        "quarter of their number is enough, of a model learned from labels as many as classes.",
    )
    minimum_balance: float = Field(
        _DEFAULTS.balance,
        ge=0.0,
        le=0.5,
        title="Minimum bit balance",
        description="Quality gate: share of tiles with the rarer value of a bit, mean of all bits; "
        "one half is best.",
    )
    maximum_flips: float = Field(
        _DEFAULTS.flips,
        ge=0.0,
        le=1.0,
        title="Maximum of flipped bits",
        description="Quality gate: mean share of the bits that differ between a tile's published "
        "code and its new one, where at least 20 tiles have a new one.",
    )
    minimum_agreement: float = Field(
        _DEFAULTS.agreement,
        ge=0.0,
        le=1.0,
        title="Minimum agreement with features",
        description="Quality gate: share of a tile's ten nearest by features that are among its "
        "ten nearest by codes, over a fixed set of tiles.",
    )
    minimum_map: float = Field(
        _DEFAULTS.mean_ap,
        ge=0.0,
        le=1.0,
        title="Minimum MAP by land cover",
        description="Quality gate: mean average precision by the classes of published land cover, "
        "over the same set of tiles, where there is some.",
    )
    on_failure: Literal["stop", "ask"] = Field(
        "stop",
        title="When codes fail",
        description="The codes that fail are kept. stop: the run fails and says why; ask: it "
        "waits for a day for somebody to approve or reject them on its page in the UI.",
    )

    @property
    def thresholds(self) -> Thresholds:
        """What codes must fulfil."""
        return Thresholds(
            distinct=self.minimum_distinct,
            balance=self.minimum_balance,
            flips=self.maximum_flips,
            agreement=self.minimum_agreement,
            mean_ap=self.minimum_map,
        )


class BackfillParameters(QualityParameters, CatalogParameters, RunnerParameters):
    """Which model takes over, and how good its codes have to be."""

    model: str | None = Field(
        None, title="Model", description="Model ID. Without it: the newest published model."
    )


class DriftParameters(Parameters):
    """From where on a night proposes to train a model anew."""

    box_title = "Drift"
    box_key = "drift"

    drift_fall: float = Field(
        _DRIFT.fall,
        ge=0.0,
        le=1.0,
        title="Fall that is drift",
        description="Training anew is proposed where agreement with features, distinct codes or "
        "bit balance of a fixed set of tiles are by more than this share below what they were when "
        "the model was trained.",
    )
    drift_unfamiliar: float = Field(
        _DRIFT.unfamiliar,
        ge=0.0,
        le=1.0,
        title="Unfamiliar tiles that are drift",
        description="Training anew is proposed where more than this share of a fixed set of tiles "
        "lies farther from the mean of the training features than 99 % of the training tiles did.",
    )

    @property
    def drift_limits(self) -> DriftLimits:
        """What is still no drift."""
        return DriftLimits(fall=self.drift_fall, unfamiliar=self.drift_unfamiliar)
