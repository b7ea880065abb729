"""Batches of what is alike: what makes the others of a batch hard negatives at no cost."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence


def alike_batches(
    neighbours: Mapping[int, Sequence[int]],
    sizes: Mapping[int, int],
    batch_size: int,
    seed: int,
) -> list[list[int]]:
    """Groups of items of about `batch_size` in all, each an item with its nearest that are left.

    Every item is in one group, and groups are in random order. Where all neighbours are taken, the
    rests fill groups together.
    """
    generator = random.Random(seed)
    order = list(neighbours)
    generator.shuffle(order)
    left = dict.fromkeys(order)
    groups: list[list[int]] = []
    rests: list[int] = []
    for item in order:
        if item not in left:
            continue
        near = (other for other in (item, *neighbours[item]) if other in left)
        group = _filled(near, sizes, batch_size)
        for member in group:
            del left[member]
        full = sum(sizes[member] for member in group) >= batch_size
        if full:
            groups.append(group)
        else:
            rests += group
    while rests:
        group = _filled(iter(rests), sizes, batch_size)
        groups.append(group)
        rests = rests[len(group) :]
    generator.shuffle(groups)
    return groups


def _filled(items: Iterable[int], sizes: Mapping[int, int], batch_size: int) -> list[int]:
    group: list[int] = []
    total = 0
    for item in items:
        if total >= batch_size:
            break
        if item not in group:
            group.append(item)
            total += sizes[item]
    return group
