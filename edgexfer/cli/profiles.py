"""``edgexfer profiles``: the hardware targets and what is known of them."""

from __future__ import annotations

from pathlib import Path

import click

from edgexfer.cli.options import json_option


@click.group("profiles")
def command() -> None:
    """List, show, check and probe hardware profiles.

    Examples:
      edgexfer profiles list
      edgexfer profiles show jetson
      edgexfer profiles probe --backend onnxruntime > my-machine.yaml
    """


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the targets, and which have been seen on hardware."""
    import json

    from edgexfer.core.codec import encode
    from edgexfer.profiles import list_profiles

    found = list_profiles()
    if as_json:
        click.echo(json.dumps(encode(found), indent=2))
        return
    width = max(len(p.name) for p in found)
    for profile in found:
        seen = "measured" if profile.seen_on_hardware else "provided, not measured"
        also = f" (also: {', '.join(profile.aliases)})" if profile.aliases else ""
        click.echo(f"{profile.name:{width}}  {profile.backend:12} {seen:23} {profile.title}{also}")


@command.command("show")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one profile, each fact with its kind and source."""
    import json

    from edgexfer.core.codec import encode
    from edgexfer.profiles import find_profile, to_yaml

    profile = find_profile(name)
    click.echo(json.dumps(encode(profile), indent=2) if as_json else to_yaml(profile), nl=as_json)


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check a profile of your own; all its faults are reported at once."""
    from edgexfer.profiles import check_profile

    profile = check_profile(file)
    click.echo(f"{file}: is a good profile of {profile.title}")


@command.command("probe")
@click.option("--backend", default="onnxruntime", show_default=True, help="The runtime to use.")
@click.option("--name", help="Name of the profile.  [default: this machine's]")
def probe_(backend: str, name: str | None) -> None:
    """Print a profile of this machine, every fact measured here."""
    from edgexfer.bench.device import facts
    from edgexfer.profiles import probe, to_yaml

    click.echo(to_yaml(probe(facts(), backend, name)), nl=False)
