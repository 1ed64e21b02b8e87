"""`magnetar config`: settings of a running broker, through admin REST."""

import click

from magnetar.cli.errors import CommandError, ExitCode
from magnetar.cli.verb import Asked, Noun, pass_asked


@click.group(cls=Noun)
def config() -> None:
    """See and change settings while the broker runs."""


@config.command("list")
@click.option("--changed", is_flag=True, help="Only those that were changed.")
@pass_asked
def list_settings(asked: Asked, changed: bool) -> None:
    """List the settings that may change while the broker runs, as they are."""
    with asked.admin() as admin:
        found = admin.settings(changed=changed)
    rows = [{"setting": name, "value": value} for name, value in sorted(found.items())]
    asked.show(rows, ("setting", "value"))


@config.command("get")
@click.argument("setting")
@pass_asked
def get_setting(asked: Asked, setting: str) -> None:
    """Show a SETTING as it is."""
    with asked.admin() as admin:
        found = admin.settings()
    if setting not in found:
        raise CommandError(
            f"there is no live setting {setting!r}",
            "`magnetar config list` names them",
            ExitCode.NOT_FOUND,
        )
    asked.show_one({setting: found[setting]}, found[setting])


@config.command("set")
@click.argument("setting")
@click.argument("value")
@pass_asked
def set_setting(asked: Asked, setting: str, value: str) -> None:
    """Change a SETTING to a VALUE, for good and in all processes of the broker."""
    with asked.admin() as admin:
        admin.set_setting(setting, value)
    asked.show_one({setting: value}, f"{setting} is {value}")


@config.command("unset")
@click.argument("setting")
@pass_asked
def unset_setting(asked: Asked, setting: str) -> None:
    """Let what the broker was started with hold again for a SETTING."""
    with asked.admin() as admin:
        admin.unset_setting(setting)
    asked.show_one({setting: None}, f"{setting} is as it was started with")
