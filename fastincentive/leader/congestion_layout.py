"""Which followers can be at which resource: labels local to each follower."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastincentive.kernels import congestion as kernels

__all__ = ["Layout", "local_labels"]


def local_labels(resources: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Label each follower's own resources (n, S, A) by 0, 1, ...; also the label's resource (n, L).

    Labels that a follower lacks are at no resource, -1.
    """
    flat = resources.reshape(len(resources), -1)
    if (flat[1:] == flat[:1]).all() and len(flat) > 1:  # as resources by state are
        labels, by_label = local_labels(resources[:1])
        return np.repeat(labels, len(flat), axis=0), np.repeat(by_label, len(flat), axis=0)
    order = np.argsort(flat, axis=1, kind="stable")
    rising = np.take_along_axis(flat, order, axis=1)
    rank = np.zeros_like(flat)
    np.cumsum(rising[:, 1:] != rising[:, :-1], axis=1, out=rank[:, 1:])
    labels = np.empty_like(flat)
    np.put_along_axis(labels, order, rank, axis=1)
    by_label = np.full((len(flat), rank.max() + 1), -1)
    np.put_along_axis(by_label, rank, rising, axis=1)
    return labels.reshape(resources.shape), by_label


class Layout:
    """Who can be where: the resources that some follower can use, and their members.

    ``used`` are their numbers, ``resource`` (n, L) counts them from 0 for each follower and label,
    -1 for none; ``shown`` (n, L) marks the labels in use.
    """

    def __init__(self, resources: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        #: Followers of each type; 1 each unless there are types.
        self.counts = counts
        self.labels, by_label = local_labels(resources)
        self.shape = by_label.shape
        count = self.labels.reshape(len(resources), -1).max(axis=1) + 1
        self.shown = np.arange(self.shape[1]) < count[:, None]
        there = np.flatnonzero(by_label >= 0)
        self.used, own = np.unique(by_label.flat[there], return_inverse=True)
        self.resource = np.full(self.shape, -1)
        self.resource.flat[there] = own
        members = there[np.argsort(own, kind="stable")]
        start = np.zeros(self.used.size + 1, np.int64)
        np.cumsum(np.bincount(own, minlength=self.used.size), out=start[1:])
        number = np.full(by_label.size, -1)
        number[members] = np.arange(members.size)
        self.follower, self.label = np.divmod(members, self.shape[1])
        alike = counts[self.follower].astype(float)
        self.members = kernels.Members(start, alike, number)
        # Values of a function for 0..m members are laid end to end; `number` is that of members.
        self.sizes = self.followers_at(self.resource >= 0) + 1
        self.first = np.cumsum(self.sizes) - self.sizes
        self.number = np.arange(self.sizes.sum()) - np.repeat(self.first, self.sizes)

    def followers_at(self, some: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Count the followers (R,) with a marked label (n, L) at each resource."""
        there = self.resource[some]
        counts = np.broadcast_to(self.counts[:, None], self.shape)[some]
        found = np.bincount(there[there >= 0], counts[there >= 0], minlength=self.used.size)
        return found.astype(np.int64)
