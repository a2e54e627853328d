"""The strategies of ``finetune`` and their options, as text for the terminal."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Iterator

from edgexfer.cli.options import attribute_docs
from edgexfer.transfer.plan import strategy_names

# Authors, title, place and year, as docstrings have them.
_PAPER = re.compile(r'(?:^|[(;] ?|\. )([^();"]*"[^"]+", [^();"]*?\d{4})')


def strategy_lines() -> Iterator[str]:
    """Yield a line for each strategy, one for its papers, and one for each option."""
    for name in strategy_names():
        module = importlib.import_module(f"edgexfer.transfer.{name}")
        first, _, rest = (module.__doc__ or "").partition("\n")
        yield first.replace("``", "").removeprefix("Strategy ")
        papers = _PAPER.findall(" ".join(rest.split()))
        if papers:
            yield f"    {'; '.join(papers)}"
        options = getattr(module, "Options", None)
        if options is None:
            continue
        texts = attribute_docs(options)
        for field in dataclasses.fields(options):
            default = "" if field.default is None else f"  [default: {field.default}]"
            yield f"    --option {field.name}=...  {texts[field.name]}{default}"
