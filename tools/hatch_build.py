"""Puts the demonstration shop into a wheel, where `squall demo` finds it; a checkout has it in demo/shop."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ShipTheShop(BuildHookInterface[Any]):
    """Called by hatchling. An editable install must not hold a copy: it would be found twice, and grow old."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the shop, and the patterns that it uses, to what a standard wheel holds."""
        if version == "standard":
            build_data["force_include"]["demo/shop"] = "squall/demo_shop"
            build_data["force_include"]["sdk/python/src"] = "squall/demo_shop/sdk"
