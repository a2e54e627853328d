"""The command line: one file per verb, and the one place that prints errors and exits.

A verb's file imports click alone at its top, so that help stays fast. What a verb does lives in the
rooms; a verb reads options, makes one call, and prints what came of it.
"""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from typing import NoReturn

import click

from edgexfer import __version__
from edgexfer.core.errors import EdgexferError, nearest

VERBS = (
    "quickstart",
    "init",
    "run",
    "data",
    "advise",
    "pretrain",
    "cluster",
    "fewshot",
    "finetune",
    "curve",
    "distill",
    "eval",
    "audit",
    "export",
    "lint",
    "verify",
    "bench",
    "compare",
    "predict",
    "report",
    "profiles",
    "doctor",
)


class _Verbs(click.Group):
    """Finds each verb in the file of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        import importlib

        module = importlib.import_module(f"edgexfer.cli.{cmd_name}")
        return _examples_last(module.command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS:
            raise click.UsageError(f"no verb {args[0]!r}; {nearest(args[0], VERBS)}", ctx)
        return super().resolve_command(ctx, args)


def _examples_last(command: click.Command) -> click.Command:
    """Move the examples of a docstring below the options; list a command by its whole sentence."""
    help_text = inspect.cleandoc(command.help or "")
    command.short_help = help_text.partition("\n\n")[0]
    for mark in ("Examples:\n", "Start here:\n"):
        text, found, examples = help_text.partition(mark)
        if found:
            # The backspace mark tells click to keep the lines as they are.
            command.help, command.epilog = text, "\b\n" + found + examples
    for inner in getattr(command, "commands", {}).values():
        _examples_last(inner)
    return command


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgexfer")
def cli() -> None:
    """From a folder of images to a small model that is proven on your device.

    Start here:
      edgexfer quickstart                          the whole trip on handwritten digits
      edgexfer init photos/ --target jetson        look at your images, write a recipe
      edgexfer run recipe.yaml                     teacher, student, INT8, benchmark, report
    Add --debug to any command for the traceback of an error.
    """


_examples_last(cli)


def main() -> NoReturn:
    """Run the command line and exit with its code: 0, 1, 2, 3 or 130."""
    argv = sys.argv[1:]
    debug = "--debug" in argv or bool(os.environ.get("EDGEXFER_DEBUG"))
    sys.exit(run([a for a in argv if a != "--debug"], debug=debug))


def run(argv: list[str], *, debug: bool = False) -> int:
    """Run one command and return its exit code; an error is two lines on stderr.

    Args:
        argv: the words after ``edgexfer``.
        debug: also print the traceback of an error.
    """
    stdout = sys.stdout
    try:
        code = cli.main(argv, prog_name="edgexfer", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except EdgexferError as error:
        return _fail(error.what, error.fix, error.exit_code, debug)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.UsageError as error:
        name = error.ctx.command_path if error.ctx else " ".join(["edgexfer", *_verb_of(argv)])
        return _fail(error.format_message(), f"see `{name} --help`", 2, debug)
    except click.ClickException as error:
        return _fail(error.format_message(), "see `edgexfer --help`", 2, debug)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", "the same command goes on where it stopped", 130, debug)
    except SystemExit:
        # Where the reader of a pipe has gone, such as `head`, click silences stdout and exits with
        # 1; that is no fault.
        if sys.stdout is stdout:
            raise
        return 0
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(last.filename)}:{last.lineno}"  # noqa: PTH119 - a name, not a path
        text = (str(error).splitlines() or [""])[0][:120]
        what = f"unexpected {type(error).__name__} at {place}: {text}"
        return _fail(what, "run it again with --debug and report what it prints", 1, debug)


def _verb_of(argv: list[str]) -> list[str]:
    """Return the verb that was typed; the parser's own errors do not know it."""
    return [word for word in argv[:1] if word in VERBS]


def _fail(what: str, fix: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo(f"error: {_one_line(what)}\n  fix: {_one_line(fix)}", err=True)
    return code


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split("\n")))
