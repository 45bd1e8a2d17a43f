# SPDX-License-Identifier: Apache-2.0
"""What something costs: a fixed part and one that grows with the amount. Learned by watching."""

from __future__ import annotations

import threading


class Line:
    """A line through observations (amount, seconds), newer ones counting more. Thread-safe.

    With observations of one amount only, all of their cost is taken to grow with it.
    """

    def __init__(self, fade: float = 0.9) -> None:
        """Take how much of what was learned before remains with each new observation."""
        self._fade = fade
        self._lock = threading.Lock()
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)

    def learn(self, amount: float, seconds: float) -> None:
        """Take an observation into account; `amount` is above zero."""
        with self._lock:
            one, x, t, xx, xt = (self._fade * each for each in self._sums)
            self._sums = (
                one + 1,
                x + amount,
                t + seconds,
                xx + amount * amount,
                xt + amount * seconds,
            )

    @property
    def known(self) -> bool:
        """Whether anything was observed yet."""
        return self._sums[0] > 0

    @property
    def usual(self) -> float:
        """The amount that was observed lately, on average; zero where nothing is known."""
        one, x, *_ = self._sums
        return x / one if one else 0.0

    def fit(self) -> tuple[float, float]:
        """Return (fixed seconds, seconds for each unit); both zero where nothing is known."""
        one, x, t, xx, xt = self._sums
        if not one:
            return 0.0, 0.0
        spread = one * xx - x * x
        # Below a few percent of variation the slope is noise.
        slope = (one * xt - x * t) / spread if spread > 0.01 * x * x else t / x
        fixed = (t - slope * x) / one
        if slope <= 0 or fixed < 0:
            return 0.0, t / x
        return fixed, slope

    def seconds(self, amount: float) -> float:
        """Return what an amount should cost."""
        fixed, slope = self.fit()
        return fixed + slope * amount
