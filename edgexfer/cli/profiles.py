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
      edgexfer profiles probe --backend onnxruntime -o my-machine.yaml
      edgexfer profiles probe --on ssh:pi5 -o my-pi.yaml
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
@click.option("--name", help="Name of the profile.  [default: that of -o, else the machine's]")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write it to FILE.yaml.")
@click.option("--force", is_flag=True, help="Write over an existing file.")
@machine_options()
def probe_(backend: str, name: str | None, out: Path | None, force: bool, **given: Any) -> None:
    """Print a profile of this machine or a board, or write it, every fact measured there.

    It takes some seconds, in which nothing else should run. A profile is called like its file.
    """
    from edgexfer.bench.device import facts
    from edgexfer.profiles import to_yaml
    from edgexfer.remote.probe import ONNX_BACKENDS, probe_machine
    from edgexfer.remote.profile import is_busy, probe

    name = _name_for(out, name, force=force)
    probe(facts(), backend, name)  # refuses a wrong name before anything is measured
    found, peaks = probe_machine(machine_of(given)[1], backend)
    profile = probe(found, backend, name, peaks)
    if backend not in ONNX_BACKENDS:
        click.echo(f"{backend} loads no ONNX file here: peaks are left out", err=True)
    if is_busy(found):
        click.echo(f"load was {found['load1']} before it: peaks may be too low", err=True)
    if out is None:
        click.echo(to_yaml(profile), nl=False)
        return
    from edgexfer.core.files import make_dir, write_atomic

    make_dir(out.parent)
    write_atomic(out, to_yaml(profile))
    click.echo(f"{out}: is written. Name it with --target {out}")


def _name_for(out: Path | None, name: str | None, *, force: bool) -> str | None:
    """Return the profile's name, that of its file where there is one."""
    from edgexfer.core.errors import ProfileError

    if out is None:
        return name
    if out.suffix not in (".yaml", ".yml"):
        raise ProfileError(f"{out}: is not the name of a profile file", "end it in .yaml")
    if name not in (None, out.stem):
        raise ProfileError(f"--name {name} is not the name of {out}", "leave --name out")
    if out.exists() and not force:
        raise ProfileError(f"{out}: already exists", "choose another -o, or add --force")
    return out.stem


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
        lines = [*profile_lines(profile), "", *bound_lines(model, work, profile, bounds)]
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
