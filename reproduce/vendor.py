"""Third-party libraries that a case imports, from the virtual environment."""
import json
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

from common.project import PROJECT
from reproduce.transform import for_old_python

SITE = Path(sysconfig.get_path("purelib"))
LIBRARIES = ("pyroute2", "scapy")
# Packages whose __init__ imports the whole library, although few modules are needed: empty in the file.
EMPTY = ("pyroute2",)
# Tables of vendor names, which nothing here uses: 1 MB, and seconds at each start.
STUBS = {"scapy/libs/manuf.py": b'DATA = ""\n', "scapy/libs/bluetoothids.py": b"DATA = {}\n"}
# Imported only if a machine has no /etc/ethertypes.
FALLBACKS = ("scapy/libs/ethertypes.py",)
# Libraries that need a newer Python than 3.8.
NEWER = "pyroute2/"
LICENCES = ("LICENSE*", "COPYING*")
# Imports all of netns in a fresh interpreter and prints the files that this loaded.
_PROBE = """
import importlib, json, pkgutil, sys, types
project, site, libraries, empty = json.loads(sys.argv[1])
sys.path[:0] = [project, site]
for name in empty:
    package = types.ModuleType(name)
    package.__path__ = [site + "/" + name]
    sys.modules[name] = package
import netns
for found in pkgutil.walk_packages(netns.__path__, "netns."):
    importlib.import_module(found.name)
files = [getattr(module, "__file__", None) for name, module in sys.modules.items() if name.split(".")[0] in libraries]
print(json.dumps([file for file in files if file and file.endswith(".py")]))
"""


@cache
def files() -> dict[str, bytes]:
    """The sources by their name in the file.  Raises CalledProcessError if netns cannot be imported."""
    words = json.dumps([str(PROJECT), str(SITE), LIBRARIES, EMPTY])
    output = subprocess.run([sys.executable, "-I", "-c", _PROBE, words], capture_output=True, text=True, check=True).stdout
    found = {str(path.relative_to(SITE)): path.read_bytes() for path in map(Path, json.loads(output))}
    found |= {name: for_old_python(data.decode(), name).encode() for name, data in found.items() if name.startswith(NEWER)}
    found |= {name: (SITE / name).read_bytes() for name in FALLBACKS} | STUBS
    found |= {f"{name}/__init__.py": b"" for name in EMPTY}
    for library in LIBRARIES:
        for pattern in LICENCES:
            for path in SITE.glob(f"{library}-*.dist-info/**/{pattern}"):
                found[f"{library}/{path.name}"] = path.read_bytes()
    return found
