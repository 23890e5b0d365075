"""`./kdrift behaviour FILE...` makes docs/behaviour.md and docs/behaviour.json (report.behaviour) from results.json of runs."""
import argparse

from cli.refusal import refuse
from common.status import Exit
from report.behaviour import document, figures, markdown
from report.reading import ResultsError, read
from report.results import write_whole


def run(options: argparse.Namespace) -> int:
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
        return refuse(f"--output {options.output}: {error.strerror}")
    print(f"{options.output}/behaviour.md, behaviour.json: {len(rows)} figures")
    return Exit.OK
