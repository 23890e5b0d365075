"""`./kdrift behaviour FILE...` makes docs/behaviour.md and docs/behaviour.json (report.behaviour) from results.json of runs."""
import argparse
from pathlib import Path

from cli.refusal import refuse
from report.behaviour import DOCS, document, figures, markdown
from report.reading import ResultsError, read
from report.results import write_whole


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="kdrift behaviour", description="what kernels do, as a table, out of results of runs")
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="results.json of a run")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, default=DOCS, help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        rows = figures([kernel for path in options.files for kernel in read(path)[1]])
        if not rows:
            raise ResultsError(f"{options.files[0]}: no measurement of report/behaviour.toml")
        options.output.mkdir(parents=True, exist_ok=True)
        write_whole(options.output / "behaviour.md", markdown(rows))
        write_whole(options.output / "behaviour.json", document(rows))
    except (ResultsError, ValueError) as error:
        return refuse(error)
    except OSError as error:
        return refuse(f"{options.output}: {error.strerror}")
    print(f"{options.output}/behaviour.md, behaviour.json: {len(rows)} figures")
    return 0
