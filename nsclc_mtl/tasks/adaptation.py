"""Losses that make the sites look alike in the embeddings: gradient reversal and the alignment of moments.

Both see the embedding of each modality where it is present and the site is known; nothing of other rows enters them,
neither as a value nor as a gradient. What stands for an absent modality is made by the fusion and is not seen here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nsclc_mtl.records import Batch, DataFault, Embedding, UsageFault


class Adaptation(nn.Module, ABC):
    """A loss of embeddings and sites, called in training.

    Args:
        names: modalities of the run. dim: size of their embeddings. sites: how many the training patients know.
        modalities: those that are adapted, None = all; names of which the run has none say nothing.
        strength: how much the loss counts in the embeddings.

    Raises DataFault for fewer than two sites, UsageFault where no modality is left.
    """

    def __init__(
        self, names: Sequence[str], dim: int, sites: int, modalities: Sequence[str] | None, strength: float
    ) -> None:
        super().__init__()
        if sites < 2:
            raise DataFault(
                f"adaptation: the training patients of the fold know {sites} site{'s' * (sites != 1)}, two are needed; "
                "split otherwise (folds.sites), or set adaptation=none"
            )
        self.names = tuple(name for name in names if modalities is None or name in modalities)
        if not self.names:
            raise UsageFault(
                f"adaptation.modalities={list(modalities or ())} names none of the run's modalities "
                f"({', '.join(names)}); name one, or null for all"
            )
        self.dim, self.sites, self.strength = dim, sites, strength

    def forward(
        self, seen: Mapping[str, Embedding], present: Mapping[str, Tensor], batch: Batch, done: float
    ) -> Tensor:
        """The loss, one number; zero where the batch knows fewer than two sites.

        present: bool [patient] a modality. done: share of the fit that is done, 0 to 1.
        """
        vectors = {name: seen[name].vector.float() for name in self.names}
        site = batch.site
        if site is None:
            site = torch.full((len(batch),), -1, device=next(iter(vectors.values())).device)
        used = {name: present[name] & (site >= 0) for name in self.names}
        # `where` and not a product: whatever an encoder made of an absent modality, also NaN, has no part in the sum
        clean = {name: torch.where(used[name][:, None], vector, 0.0) for name, vector in vectors.items()}
        return self.apart(clean, used, site, done)

    @abstractmethod
    def apart(self, vectors: Mapping[str, Tensor], used: Mapping[str, Tensor], site: Tensor, done: float) -> Tensor:
        """How far the sites are apart.

        vectors: [patient, dim] a modality, zero where not `used` (bool [patient]). site: int64 [patient].
        """


class Reversal(torch.autograd.Function):
    """The identity, whose gradient is minus `strength` times the one that comes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        """`x` as it is."""
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient, turned round."""
        return -ctx.strength * grad, None


def ramp(done: float) -> float:
    """How much of the reversal is in force, 0 at the start and nearly 1 at the end (Ganin et al., 2016, section 5.2.2).

    >>> ramp(0.0), round(ramp(0.5), 3), round(ramp(1.0), 4)
    (0.0, 0.987, 0.9999)
    """
    return 2.0 / (1.0 + math.exp(-10.0 * done)) - 1.0


class Quick(nn.Linear):
    """A linear layer whose weights are `speed` times its parameters, which begin so much smaller.

    An optimiser whose steps do not depend on the size of gradients (Adam) moves the weights `speed` times as fast.
    """

    def __init__(self, wide: int, out: int, speed: float) -> None:
        super().__init__(wide, out)
        self.speed = speed
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(1 / speed)

    def forward(self, x: Tensor) -> Tensor:
        """[..., wide] -> [..., out]."""
        return functional.linear(x, self.speed * self.weight, self.speed * self.bias)

    def size(self) -> Tensor:
        """Sum of the squared weights."""
        return (self.speed * self.weight).square().sum()


class Dann(Adaptation):
    """Gradient reversal (Ganin et al., JMLR 2016): a classifier learns to tell the site from the embeddings side by
    side, and the encoders learn what it cannot tell it from. An absent modality is zero to the classifier.

    Other than in the paper there are any number of sites, all of them labelled for the tasks; each site that occurs in
    a batch counts alike in the cross-entropy; and the classifier is linear, fast and held down. A fit of a hundred
    steps ends before a free classifier has followed the encoders: the two then chase each other, sites are told better
    than before, and the tasks suffer. `speed` lets it follow; the squared weights that `damping` adds to its loss keep
    them in proportion to how far the sites are apart, so that the push ends where there is nothing to tell. They act
    as the gradient penalty of Mescheder et al. (ICML 2018) does, which for a linear classifier is the same.

    Args:
        hidden: units of a hidden layer; 0 = a linear classifier. speed: how many times faster than other weights it
            learns. damping: weight of half the sum of its squared weights. See `Adaptation` for the others.
    """

    def __init__(
        self,
        names: Sequence[str],
        dim: int,
        sites: int,
        modalities: Sequence[str] | None = None,
        strength: float = 1.0,
        hidden: int = 0,
        speed: float = 30.0,
        damping: float = 1.0,
    ) -> None:
        super().__init__(names, dim, sites, modalities, strength)
        self.damping, wide = damping, dim * len(self.names)
        layers: list[nn.Module] = [Quick(wide, hidden, speed), nn.ReLU()] if hidden else []
        self.tell = nn.Sequential(*layers, Quick(hidden or wide, sites, speed))

    def apart(self, vectors: Mapping[str, Tensor], used: Mapping[str, Tensor], site: Tensor, done: float) -> Tensor:
        """Cross-entropy of telling the site, of the patients who have one of the modalities, and the penalty."""
        joined = torch.cat([vectors[name] for name in self.names], dim=1)
        weight = even(site, torch.stack([used[name] for name in self.names]).any(0), self.sites)
        said = self.tell(Reversal.apply(joined, self.strength * ramp(done)))
        each = functional.cross_entropy(said, site.clamp(min=0), reduction="none")
        large = sum((layer.size() for layer in self.tell if isinstance(layer, Quick)), start=joined.new_zeros(()))
        return (each * weight).sum() + 0.5 * self.damping * large * (weight.sum() > 0)


class DeepCoral(Adaptation):
    """Alignment of second moments (Sun and Saenko, ECCV workshops 2016): the squared Frobenius distance of the
    covariances of two sites' embeddings, over 4 dim^2; mean over the pairs of sites, summed over the modalities.

    Other than in the paper each pair of training sites takes the place of source and target, and `means` adds so many
    times the squared distance of the sites' mean embeddings, over 4 dim: a covariance does not see that all of a site's
    patients are shifted. Sites with fewer than two patients in the batch (who have the modality) take no part.

    Args:
        means: weight of the distance of means; 0 = covariances alone, as published. See `Adaptation` for the others.
    """

    def __init__(
        self,
        names: Sequence[str],
        dim: int,
        sites: int,
        modalities: Sequence[str] | None = None,
        strength: float = 1.0,
        means: float = 0.0,
    ) -> None:
        super().__init__(names, dim, sites, modalities, strength)
        self.means = means

    def apart(self, vectors: Mapping[str, Tensor], used: Mapping[str, Tensor], site: Tensor, done: float) -> Tensor:
        """Distance of the moments, times `strength`."""
        total = sum((0.0 * vector.sum() for vector in vectors.values()), start=torch.zeros((), device=site.device))
        for name in self.names:
            of = [vectors[name][used[name] & (site == number)] for number in range(self.sites)]
            gaps = [self._gap(one, other) for one, other in combinations([x for x in of if len(x) > 1], 2)]
            if gaps:
                total = total + torch.stack(gaps).mean()
        return self.strength * total

    def _gap(self, one: Tensor, other: Tensor) -> Tensor:
        gap = (covariance(one) - covariance(other)).square().sum() / (4 * self.dim**2)
        return gap + self.means * (one.mean(0) - other.mean(0)).square().sum() / (4 * self.dim)


def covariance(x: Tensor) -> Tensor:
    """Covariance [dim, dim] of the rows of x [patient, dim], at least two."""
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)


def even(site: Tensor, taking: Tensor, sites: int) -> Tensor:
    """Weights [patient] that sum to one and give each site that occurs the same; zero for who takes no part.

    All zero where fewer than two sites occur.

    >>> even(torch.tensor([0, 0, 1, -1]), torch.tensor([True, True, True, False]), 3).tolist()
    [0.25, 0.25, 0.5, 0.0]
    """
    member = functional.one_hot(site.clamp(min=0), sites).float() * taking[:, None]
    count = member.sum(0)
    there = (count > 0).sum()
    weight = (member / count.clamp(min=1)).sum(1) / there.clamp(min=1)
    return torch.where(there > 1, weight, 0.0)
