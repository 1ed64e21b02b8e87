"""Where the entries of a published run get their places: once for each run.

    gathered   the rows by producer, and what there is of each
    stamp      indexes and times of many groups
    stamped    the same for one, which is measured
    rising     nothing for deduplication to look up

Two implementations: plain Python (`measuring`), and compiled where the extension could be built
(`_positions.pyx`). They do the same; which of them runs is decided here, once.
"""

from magnetar.broker import compiled
from magnetar.broker.topics.producers import measuring

gathered = measuring.gathered
stamp = measuring.stamp
stamped = measuring.stamped
rising = measuring.rising

if kernel := compiled.load("magnetar.broker.topics.producers._positions"):
    gathered = kernel.gathered
    stamp = kernel.stamp
    stamped = kernel.stamped
    rising = kernel.rising
