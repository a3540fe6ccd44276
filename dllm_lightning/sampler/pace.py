"""How many slots are written at a step: a share of the text, or all that the network is sure enough of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm_lightning.noise import NoiseSchedule
from dllm_lightning.sampler.checks import check_count, check_nats, check_share
from dllm_lightning.sampler.order import Judged, foremost, inverse, lined_up

Rule = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(number of the step, rank (B L), measure (B L), hidden (B L)) -> the hidden slots that are written now (B L)."""


@dataclass(frozen=True)
class Pace(ABC):
    """Decides at each step how many of the hidden slots are written, the foremost first: at least one in each row.

    No step is planned without an end: whatever was planned, a rule goes on until nothing is hidden.
    """

    shares: ClassVar[bool] = False
    """Whether it shares a text out over the sampler's number of steps."""

    def measure(self, judged: Judged) -> Float[Tensor, " N"]:
        """What its limit is about: how sure the network is of its proposals, unless it says otherwise."""
        return judged.sure

    @abstractmethod
    def rule(
        self,
        hidden: Int[Tensor, " B"],
        steps: int | None,
        schedule: NoiseSchedule,
        generator: torch.Generator | None,
    ) -> Rule:
        """The rule of one walk, which begins with so many hidden slots in each row."""


@dataclass(frozen=True)
class Even(Pace):
    """The same number at every step, larger shares first: 10 slots in 4 steps are 3, 3, 2, 2 (LLaDA).

    A row with fewer slots than steps takes one a step. Without `steps`, one a step: the slowest and best.
    """

    shares = True

    def rule(
        self,
        hidden: Int[Tensor, " B"],
        steps: int | None,
        schedule: NoiseSchedule,
        generator: torch.Generator | None,
    ) -> Rule:
        def rule(index: int, rank: Tensor, measure: Tensor, at: Tensor) -> Tensor:
            left = at.sum(1)
            quota = torch.ones_like(left) if steps is None else -(-left // max(1, steps - index))
            return foremost(rank, at, quota)

        return rule


@dataclass(frozen=True)
class Scheduled(Pace):
    """As many as the noise schedule reveals between t = 1 - j/steps and the next time (MDLM's and dLLM's samplers).

    Of M hidden slots round(M (1 - r)) are written, r = (1 - alpha(s)) / (1 - alpha(t)); half is rounded to even. At
    random, their number is drawn from the binomial distribution with these odds, as if each slot decided by itself.
    Steps without a slot cost no network call: the row goes on to its next one that has some.
    """

    at_random: bool = False

    shares = True

    def rule(
        self,
        hidden: Int[Tensor, " B"],
        steps: int | None,
        schedule: NoiseSchedule,
        generator: torch.Generator | None,
    ) -> Rule:
        longest = int(hidden.amax()) if len(hidden) else 1
        quotas = self._quotas(hidden, steps or max(1, longest), schedule, generator)

        def rule(index: int, rank: Tensor, measure: Tensor, at: Tensor) -> Tensor:
            return foremost(rank, at, quotas[:, index]) if index < quotas.shape[1] else at

        return rule

    def _quotas(
        self, hidden: Int[Tensor, " B"], steps: int, schedule: NoiseSchedule, generator: torch.Generator | None
    ) -> Int[Tensor, "B steps"]:
        """A column per step, and in each row those without a slot at the end, where they are never reached."""
        ratio = schedule.mask_ratio(1.0 - torch.arange(steps + 1, dtype=torch.float64) / steps).tolist()
        ratio[-1] = 0.0  # the last step writes what is left, whatever the schedule leaves at t = 0
        left, columns = hidden.double(), []
        for before, after in pairwise(ratio):
            odds = 1.0 - after / before
            if self.at_random:
                now = torch.binomial(left, torch.full_like(left, odds), generator=generator)
            else:
                now = (left * odds).round()
            left = left - now
            columns.append(now.long())
        quotas = torch.stack(columns, dim=1)
        return quotas.gather(1, (quotas == 0).byte().argsort(dim=1, stable=True))


@dataclass(frozen=True)
class Several(Pace):
    """So many tokens a step, however long the text. Raises ValueError for none."""

    tokens: int = 2

    def __post_init__(self) -> None:
        check_count("pace.tokens", self.tokens)

    def rule(
        self,
        hidden: Int[Tensor, " B"],
        steps: int | None,
        schedule: NoiseSchedule,
        generator: torch.Generator | None,
    ) -> Rule:
        return lambda index, rank, measure, at: foremost(rank, at, torch.full_like(hidden, self.tokens))


@dataclass(frozen=True)
class Threshold(Pace):
    """Every slot whose proposal the network believes in with at least this probability (Fast-dLLM, arXiv:2505.22618).

    Raises ValueError unless it is a probability.
    """

    threshold: float = 0.9

    def __post_init__(self) -> None:
        check_share("pace.threshold", self.threshold)

    def rule(
        self,
        hidden: Int[Tensor, " B"],
        steps: int | None,
        schedule: NoiseSchedule,
        generator: torch.Generator | None,
    ) -> Rule:
        return lambda index, rank, measure, at: (
            (at & (measure >= self.threshold)) | foremost(rank, at, torch.ones_like(hidden))
        )


@dataclass(frozen=True)
class Factor(Pace):
    """The n surest slots, with the largest n for which the n-th is believed with at least 1 - factor / (n + 1).

    The more slots are written at once, the surer each has to be (Fast-dLLM, arXiv:2505.22618, section 3.3). Raises
    ValueError for a factor that is not above 0.
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        check_nats("pace.factor", self.factor)

    def rule(
        self,
        hidden: Int[Tensor, " B"],
        steps: int | None,
        schedule: NoiseSchedule,
        generator: torch.Generator | None,
    ) -> Rule:
        def rule(index: int, rank: Tensor, measure: Tensor, at: Tensor) -> Tensor:
            order = lined_up(measure, at)
            count = torch.arange(1, at.shape[1] + 1, device=at.device)
            enough = at.gather(1, order) & (measure.gather(1, order) >= 1 - self.factor / (count + 1))
            return at & (inverse(order) < enough.sum(1, keepdim=True).clamp(min=1))

        return rule


@dataclass(frozen=True)
class EntropyBound(Pace):
    """The longest run of foremost slots whose entropies, without the largest of them, sum to `nats` at most.

    That bounds what is lost by writing them as if they were independent (EB-Sampler, arXiv:2505.24857, equation 5).
    Raises ValueError for a bound that is not above 0.
    """

    nats: float = 0.1

    def __post_init__(self) -> None:
        check_nats("pace.nats", self.nats)

    def measure(self, judged: Judged) -> Float[Tensor, " N"]:
        return judged.nats

    def rule(
        self,
        hidden: Int[Tensor, " B"],
        steps: int | None,
        schedule: NoiseSchedule,
        generator: torch.Generator | None,
    ) -> Rule:
        def rule(index: int, rank: Tensor, measure: Tensor, at: Tensor) -> Tensor:
            order = lined_up(rank, at)
            nats = torch.where(at, measure, torch.inf).gather(1, order)
            within = nats.cumsum(1) - nats.cummax(1).values <= self.nats  # inf - inf is no number, and so not within
            run = within.long().cumprod(1).bool()  # the foremost is always in it: without the largest there is none
            return at & run.gather(1, inverse(order))

        return rule
