"""`./kdrift chance FILE...` makes chance.json (report.chance) from results.json of runs."""
import argparse
import json

from cli.refusal import refuse
from common.status import Exit
from report.chance import ChanceError, found_in, stored
from report.reading import ResultsError, read
from report.results import write_whole


def run(options: argparse.Namespace) -> int:
    try:
        made_from, topics = found_in([read(path)[1] for path in options.files])
        if not made_from:
            raise ChanceError("no kernel was run twice in these files")
        if options.add:
            before_from, before = stored(options.output)
            made_from = sorted({*before_from, *made_from})
            topics = {name: sorted({*topics.get(name, ()), *before.get(name, ())}) for name in sorted({*topics, *before})}
        write_whole(options.output, json.dumps({"made_from": made_from, "moves": topics}, indent=1) + "\n")
    except (ResultsError, ChanceError) as error:
        return refuse(error)
    except OSError as error:
        return refuse(f"--output {options.output}: {error.strerror}")
    print(f"{options.output}: {sum(map(len, topics.values()))} moves of {len(topics)} tests, from {'; '.join(made_from)}")
    return Exit.OK
