"""Where the bytes of the storage are put together: once for each run, commit and flush.

    lay      a run into its journal record, in a slab    record.py   or  _journal.pyx
    finish   header and checksums of a record            record.py   or  _journal.pyx
    Pages    a generation into an entry log              pages.py    or  _journal.pyx

Two implementations: plain Python, and compiled where the extension could be built. They do the
same to the byte; which of them runs is decided here, once.
"""

from magnetar.broker import compiled
from magnetar.broker.storage import pages, record

lay = record.lay
finish = record.finish
Pages: type[pages.Pages] = pages.Pages

if kernel := compiled.load("magnetar.broker.storage._journal"):
    lay = kernel.lay
    finish = kernel.finish
    Pages = kernel.Pages
