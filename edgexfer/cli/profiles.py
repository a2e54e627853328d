"""``edgexfer profiles``: the hardware targets and what is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgexfer.cli.machines import machine_of, machine_options
from edgexfer.cli.options import json_option

if TYPE_CHECKING:
    from edgexfer.core.profile import HardwareProfile


@click.group("profiles")
def command() -> None:
    """List, show, check and probe hardware profiles.

    Examples:
      edgexfer profiles list
      edgexfer profiles show jetson
      edgexfer profiles show rpi5 --model student.onnx
      edgexfer profiles probe --backend onnxruntime > my-machine.yaml
      edgexfer profiles probe --on ssh:pi5 --name my-pi > my-pi.yaml
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
    from edgexfer.cli.target import list_lines

    click.echo("\n".join(list_lines(found)))


@command.command("show")
@click.argument("name")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="An ONNX file: add the least latency that the target can reach with it, and its memory.",
)
@click.option("--yaml", "as_yaml", is_flag=True, help="Print the profile's file, to make your own.")
@json_option
def show(name: str, model: Path | None, as_yaml: bool, as_json: bool) -> None:
    """Show one profile, each fact with its kind and source."""
    import json

    from edgexfer.core.codec import encode
    from edgexfer.profiles import find_profile, to_yaml

    if as_yaml and (as_json or model):
        context = click.get_current_context()
        raise click.UsageError("--yaml goes with neither --json nor --model", context)
    profile = find_profile(name)
    if as_yaml:
        click.echo(to_yaml(profile), nl=False)
    elif model is not None:
        _show_bound(profile, model, as_json=as_json)
    elif as_json:
        click.echo(json.dumps(encode(profile), indent=2))
    else:
        from edgexfer.cli.target import profile_lines

        click.echo("\n".join(profile_lines(profile)))


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check a profile of your own; all its faults are reported at once."""
    from edgexfer.profiles import check_profile

    profile = check_profile(file)
    click.echo(f"{file}: is a good profile of {profile.title}")


@command.command("probe")
@click.option("--backend", default="onnxruntime", show_default=True, help="The runtime to use.")
@click.option("--name", help="Name of the profile.  [default: the machine's]")
@machine_options()
def probe_(backend: str, name: str | None, **given: Any) -> None:
    """Print a profile of this machine or a board, every fact measured there.

    It takes some seconds, in which nothing else should run.
    """
    from edgexfer.bench.device import facts
    from edgexfer.profiles import probe, to_yaml
    from edgexfer.remote.probe import ONNX_BACKENDS, probe_machine

    probe(facts(), backend, name)  # refuses a wrong name before anything is measured
    found, peaks = probe_machine(machine_of(given)[1], backend)
    profile = probe(found, backend, name, peaks)
    if backend not in ONNX_BACKENDS:
        click.echo(f"{backend} loads no ONNX file here: peaks are left out", err=True)
    if (found["load1"] or 0.0) > 0.5:
        click.echo(f"load was {found['load1']} before it: peaks may be too low", err=True)
    click.echo(to_yaml(profile), nl=False)


def _show_bound(profile: HardwareProfile, model: Path, *, as_json: bool) -> None:
    import json

    from edgexfer.cli.target import bound_lines, profile_lines
    from edgexfer.core.codec import encode
    from edgexfer.models.onnxfile import examine
    from edgexfer.models.roofline import ASSUMPTIONS, bound
    from edgexfer.models.workload import read_workload

    examine(model)
    work = read_workload(model)
    bounds = [bound(work, profile, precision) for precision in profile.precisions]
    if not as_json:
        lines = [*profile_lines(profile), "", *bound_lines(model, work, bounds)]
        click.echo("\n".join(lines))
        return
    document = {
        "profile": encode(profile),
        "model": str(model),
        "lower_bounds": encode(bounds),
        "uncounted": list(work.uncounted),
        "assumptions": list(ASSUMPTIONS),
    }
    click.echo(json.dumps(document, indent=2))
