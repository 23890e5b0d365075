"""Paths and tools as hosts may have them: what separates words elsewhere is part of a path here, and a failed tool is one line."""
import errno
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from execnet import Group
from execnet.gateway_io import shell_split_path
from xdist.workermanage import NodeManager

from cli.__main__ import main
from common.errors import FetchError
from common.project import PROJECT
from kernels.sources import archives
from session.session import worker_spec


@pytest.mark.parametrize("path", ["//tmp/a//b/job", "/tmp/two words/job", "/tmp/o'brien/\"$HOME\"/job", "/tmp/python=x//id=y/job"])
def test_a_workers_command_keeps_its_paths(path, monkeypatch):
    """Also in the gateway that xdist makes: it takes another specification, made from the text, if this one has no execution model."""
    words = [f"{path}/python3", "-m", "vm.launcher", path]
    asked = []

    def makegateway(_group, spec):
        asked.append(spec)
        raise InterruptedError

    monkeypatch.setattr(Group, "makegateway", makegateway)
    with pytest.raises(InterruptedError):
        NodeManager.setup_node(SimpleNamespace(group=Group()), worker_spec(words, "0", "3"), lambda event: None)
    spec, = asked

    assert shell_split_path(spec.python) == words
    assert (spec.popen, spec.kernel, spec.shard, spec.id) == (True, "0", "3", None)


def test_a_configuration_that_apt_cannot_read_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "apt.conf").write_text("this is { no configuration")
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))

    with pytest.raises(FetchError, match="^apt's configuration cannot be read: .+$"):
        archives()


def test_what_cannot_be_removed_from_the_cache_is_one_line(tmp_path, monkeypatch, capsys):
    """Such as a mount point."""
    monkeypatch.setenv("KDRIFT_CACHE", str(tmp_path))
    (tmp_path / "apt/lists").mkdir(parents=True)

    def busy(path):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))

    monkeypatch.setattr("kernels.cache.shutil.rmtree", busy)
    assert main(["kernels", "--prune"]) == 3
    assert capsys.readouterr().err == f"kdrift: cannot use the cache in {tmp_path}: {tmp_path}/apt/lists: Device or resource busy\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gets as far as the tools")
def test_a_tool_that_makes_no_box_is_one_line(tmp_path):
    for name in ("mmdebstrap", "mke2fs", "qemu-img", "unshare"):
        (tmp_path / name).write_text("#!/bin/sh\necho no room >&2\nexit 3\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run([sys.executable, "-m", "hosts.boxes", tmp_path], capture_output=True, text=True, cwd=PROJECT,
                          env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "KDRIFT_MIRROR": "http://localhost/debian"})

    assert done.returncode == 1
    assert done.stderr == "no room\nhosts.boxes: mmdebstrap failed with status 3, for the reason above\n"
