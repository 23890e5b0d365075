"""A finding as a test of its own: the draft that a person completes, and repro.pyz."""
import pprint
from pathlib import Path

from explore.findings import Finding
from netns.scenario.figures import Figures
from reproduce.collect import Manifest
from reproduce.pack import write

_WIDTH = 130
_LONG = 60.0                                # seconds of waiting from which on a test wants the virtual clock
_TEXT = '''\
"""Found by ./kdrift explore between {old} and {new}: {text}.

{story}
"""
import pytest

from fixtures.clock import CLOCK
from netns.scenario.figures import figures, unlike
from netns.scenario.ready import built
from netns.scenario.run import observe

SCENARIO = {scenario}
# What differs, as each kernel shows it under several seeds.
OLD = {old_figures}
NEW = {new_figures}


@pytest.fixture
def network():
    with built(SCENARIO) as made:
        yield made


{mark}def test_explored_{id}(network) -> None:
    """TODO: name the promise, and who makes it; the name says what holds. Are these the right figures?"""
    CLOCK.align({longest})
    assert unlike(OLD, figures(observe(SCENARIO, network))) == {{}}
'''


class NoFigures(Exception):
    """What differs is in no figure of netns.scenario.figures; the message says so."""


def name_of(finding: Finding) -> str:
    """The module's name."""
    return f"test_explored_{finding.id}"


def draft(finding: Finding) -> str:
    """The module's source. Raises NoFigures."""
    if not finding.old:
        raise NoFigures(f"{finding.id} {finding.text}: what differs is in no figure that a test can name; see its story")
    waits = [float(step["seconds"]) for step in finding.scenario["steps"] if step["do"] == "wait"]
    mark = f'@pytest.mark.virtual_clock("lets {sum(waits):g} s pass")\n' if sum(waits) >= _LONG else ""
    return _TEXT.format(
        id=finding.id, old=finding.between[0], new=finding.between[1], text=finding.text, mark=mark, longest=max(1.0, *waits, 0.0),
        story="\n".join(f"    {line}".rstrip() for line in finding.story).replace("\\", "\\\\").replace('"""', "'''"),
        scenario=_literal(finding.scenario), old_figures=_literal(finding.old), new_figures=_literal(finding.new))


def _literal(value: Figures) -> str:
    return pprint.pformat(value, width=_WIDTH, sort_dicts=False)


def write_case(target: Path, finding: Finding) -> None:
    """repro.pyz: it reproduces where a kernel does not do as the old one. Raises NoFigures, OSError."""
    source, module = draft(finding), name_of(finding)
    waits = sum(float(step["seconds"]) for step in finding.scenario["steps"] if step["do"] == "wait")
    firewall = any(step["do"] in ("firewall", "flush") for step in finding.scenario["steps"])
    case = Manifest(f"{module}.py::{module}", module, module, f"as {finding.between[0]}, unlike {finding.between[1]}: {finding.text}\n"
                    + "\n".join(finding.story), ["network"], {"network": [(module, "network")]}, modules=[module],
                    virtual_clock=f"{waits:g} s pass" if waits >= _LONG else "", packages=["nftables"] if firewall else [])
    write(target, [case], {module: source})
