"""Bad machines for ``--on``: what a shell or ssh could take for something else is refused unread.

The table that names what must come of them is in ``test_bad_inputs.py``. What only shows when a
board is called, such as an unknown host key, is in ``tests/remote/test_faults.py``.
"""

from __future__ import annotations

from tests.cli.bad import Place


def on_nothing(p: Place) -> list[str]:
    return _bench(p, " , ")


def on_a_bare_name(p: Place) -> list[str]:
    return _bench(p, "pi5")


def on_an_unknown_scheme(p: Place) -> list[str]:
    return _bench(p, "telnet:pi5")


def on_no_host(p: Place) -> list[str]:
    return _bench(p, "ssh:")


def on_a_host_that_is_an_option(p: Place) -> list[str]:
    return _bench(p, f"ssh:-oProxyCommand=touch {p.here / 'executed'}")


def on_a_host_with_a_command(p: Place) -> list[str]:
    return _bench(p, f"ssh:pi5;$(touch {p.here / 'executed'})")


def on_a_host_with_a_line_end(p: Place) -> list[str]:
    return _bench(p, "ssh:pi5\nProxyCommand true")


def on_a_user_with_a_line_end(p: Place) -> list[str]:
    return _bench(p, "ssh:pi\nroot@pi5")


def on_a_user_that_is_an_option(p: Place) -> list[str]:
    return _bench(p, "ssh:-Fevil@pi5")


def on_a_port_too_large(p: Place) -> list[str]:
    return _bench(p, "ssh:pi5:70000")


def on_a_port_in_words(p: Place) -> list[str]:
    return _bench(p, "ssh:pi5:ssh")


def on_a_board_twice(p: Place) -> list[str]:
    return _bench(p, "ssh:pi5,local,ssh:pi5")


def on_a_python_with_a_command(p: Place) -> list[str]:
    return [*_bench(p, "ssh:pi5"), "--remote-python", f"python3;touch {p.here / 'executed'}"]


def on_a_python_that_is_an_option(p: Place) -> list[str]:
    return [*_bench(p, "ssh:pi5"), "--remote-python", "-c"]


def verify_on_a_host_with_a_quote(p: Place) -> list[str]:
    return ["verify", str(p.bundle), "--on", "ssh:pi5'"]


def doctor_on_an_unknown_scheme(p: Place) -> list[str]:
    return ["doctor", "--on", "http://pi5"]


def export_on_two_boards(p: Place) -> list[str]:
    return _export(p, "--on", "ssh:pi5,ssh:nano")


def export_on_a_board_that_has_nothing_to_do(p: Place) -> list[str]:
    return _export(p, "--on", "ssh:pi5", "--precision", "int8")


def _export(p: Place, *more: str) -> list[str]:
    out = str(p.here / "out")
    return ["export", str(p.run), "--target", "rpi5", "--out", out, *more]


def _bench(p: Place, machine: str) -> list[str]:
    return ["bench", str(p.bundle), "--out", str(p.here / "out"), "--on", machine]
