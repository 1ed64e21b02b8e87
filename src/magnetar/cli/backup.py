"""`magnetar backup` and `magnetar restore`: copies of data folders.

A backup may be made while the broker writes. It holds everything that was acknowledged
before the command began; on the same file system the large files are not even copied, but
get a second name. It is a data folder like any other: `doctor` can verify it.
"""

from pathlib import Path
from time import sleep

import click

from magnetar.broker.files import DiskFiles
from magnetar.broker.metadata.database import copy_database
from magnetar.broker.storage import backup as storage
from magnetar.cli.doctor import check_format
from magnetar.cli.progress import progress
from magnetar.cli.verb import Asked, LocalVerb, pass_asked


@click.command(cls=LocalVerb)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@pass_asked
def backup(asked: Asked, folder: Path, target: Path) -> None:
    """Copy a data folder, also while it is written to.

    TARGET is a new folder. Everything acknowledged before this command is in it.
    """
    files = DiskFiles()
    check_format(folder, files)
    with progress("copying", quiet=asked.json, as_bytes=True) as meter:
        copied = storage.backup(
            folder,
            target,
            files,
            sleep,
            meter.reach,
            lambda source, copy: copy_database(source, copy, files),
        )
    _tell(asked, folder, target, copied)


@click.command(cls=LocalVerb)
@click.argument("source", type=click.Path(file_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@pass_asked
def restore(asked: Asked, source: Path, folder: Path) -> None:
    """Make a data folder of a backup.

    FOLDER is a new one; the backup stays as it is. Then: magnetar standalone --data FOLDER
    """
    files = DiskFiles()
    check_format(source, files)
    with progress("copying", quiet=asked.json, as_bytes=True) as meter:
        copied = storage.restore(source, folder, files, meter.reach)
    _tell(asked, source, folder, copied)


def _tell(asked: Asked, source: Path, target: Path, copied: storage.Copied) -> None:
    asked.show_one(
        {
            "from": str(source),
            "to": str(target),
            "files": copied.files,
            "bytes": copied.bytes,
        },
        f"copied {source} to {target}: {copied.files:,} files, {copied.bytes:,} bytes",
    )
