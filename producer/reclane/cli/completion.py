"""`reclane completion`: click's own completion script for a shell."""

import click
from click.shell_completion import get_completion_class

from reclane.cli import PROGRAM, cli

SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog='bash: add eval "$(reclane completion bash)" to ~/.bashrc; zsh likewise in ~/.zshrc; '
    "fish: reclane completion fish > ~/.config/fish/completions/reclane.fish"
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script that completes commands in your SHELL."""
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())
