"""The configuration of a `TieredCacheManager`: the keys and defaults of ipfs_kit_py's ``cache_config``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fsdriver.cache.heat import HeatWeights
from fsdriver.config.values import Size
from fsdriver.errors import ConfigError


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True)


class ArcSettings(_Table):
    """``arc``: the policy of the memory tier; keys that are not given keep their defaults."""

    ghost_list_size: Annotated[int, Field(ge=0)] = 1024
    """Keys of evicted items that are remembered, of each of the two kinds."""
    frequency_weight: float = 0.7
    recency_weight: float = 0.3
    access_boost: float = 2.0
    heat_decay_hours: Annotated[float, Field(gt=0)] = 1.0

    @property
    def weights(self) -> HeatWeights:
        """As `fsdriver.cache.heat` takes them."""
        return HeatWeights(self.frequency_weight, self.recency_weight, self.access_boost, self.heat_decay_hours)


class TieredSettings(_Table):
    """All keys; sizes are bytes, or texts such as ``"500MB"``."""

    memory_cache_size: Size = 100 << 20
    local_cache_size: Annotated[Size, Field(validation_alias=AliasChoices("local_cache_size", "disk_cache_size"))] = (
        1 << 30
    )
    local_cache_path: Annotated[
        Path, Field(validation_alias=AliasChoices("local_cache_path", "disk_cache_path"))
    ] = Path("~/.ipfs_cache")  # fmt: skip
    max_item_size: Size = 50 << 20
    """Largest item that is kept in memory."""
    min_access_count: Annotated[int, Field(ge=0)] = 2
    enable_memory_mapping: bool = True
    arc: ArcSettings = ArcSettings()
    tiers: dict[str, Any] = Field(default_factory=dict)
    default_tier: str = "memory"
    promotion_threshold: Annotated[int, Field(ge=0)] = 3
    """Uses after which content is copied into a further tier."""
    demotion_threshold: Annotated[int | float, Field(ge=0)] = 30
    """Days without a use after which content leaves a tier."""
    replication_policy: Literal["none", "high_value", "all"] = "none"
    external_backends: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Tiers beyond the disk; none can be enabled yet."""

    @model_validator(mode="after")
    def _no_further_tier(self) -> TieredSettings:
        enabled = [name for name, table in self.external_backends.items() if table.get("enabled")]
        if enabled:
            raise ValueError(f"{', '.join(enabled)}: tiers beyond the disk are not available yet; set enabled = False")
        return self

    @classmethod
    def of(cls, config: Mapping[str, Any] | None) -> TieredSettings:
        """From a mapping.

        Raises
        ------
        ConfigError
            A key is unknown, or its value is not one it can have.
        """
        try:
            return cls.model_validate(dict(config or {}))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"{where or 'cache_config'}: {first['msg']}", where) from error
