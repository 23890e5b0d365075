"""`./kdrift chance FILE...` makes chance.json (report.chance) from results.json of runs."""
import argparse
import json
from pathlib import Path

from cli.refusal import refuse
from report.chance import FILE, ChanceError, found_in, stored
from report.reading import ResultsError, read
from report.results import write_whole


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="kdrift chance", description="what moves by itself between runs of one kernel")
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="results.json of runs, best in several orders")
    parser.add_argument("--add", action="store_true", help="keep what the file already says")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, default=FILE, help="default: %(default)s")
    options = parser.parse_args(arguments)
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
        return refuse(f"{options.output}: {error.strerror}")
    print(f"{options.output}: {sum(map(len, topics.values()))} moves of {len(topics)} tests, from {'; '.join(made_from)}")
    return 0
