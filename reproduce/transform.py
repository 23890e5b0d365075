"""The suite's sources, written for Python 3.11, as text that Python 3.8 runs; every statement keeps its line.

What only the standard library lacks is supplied at run time, see inside/repro/compat.py.
"""
import ast

OLDEST = (3, 8)
_GENERIC = {"tuple", "list", "dict", "set", "frozenset", "type", "Callable", "Iterator", "Mapping", "Sequence", "Iterable"}
_METHODS = ("removeprefix", "removesuffix")
Place = tuple[int, int]                     # line, and byte in it


class TooNew(Exception):
    """The source has a construct that Python 3.8 cannot parse; the message names it."""


def for_old_python(source: str, name: str) -> str:
    """The source with unevaluated annotations, and with calls in place of what Python 3.8's built-in types lack.

    Raises TooNew.
    """
    try:
        tree = ast.parse(source, feature_version=OLDEST)
    except SyntaxError as error:
        raise TooNew(f"{name}, line {error.lineno}: {error.msg} (Python 3.8 has no such syntax)") from None
    changes: list[tuple[Place, Place, str]] = []
    names: set[str] = set()
    dictionaries = _dictionaries(tree)
    for node in ast.walk(tree):
        for start, end, text, needs in _changes(node, source, dictionaries):
            changes.append((start, end, text))
            names.add(needs)
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    data = bytearray(source.encode())
    for (row, column), (end_row, end_column), text in sorted(changes, reverse=True):
        data[starts[row - 1] + column:starts[end_row - 1] + end_column] = text.encode()
    return _with_imports(data.decode(), tree, sorted(names - {""}))


def _dictionaries(tree: ast.Module) -> set[str]:
    """The names of the module's own dictionaries."""
    made = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, (ast.Dict, ast.DictComp))]
    return {target.id for node in made for target in node.targets if isinstance(target, ast.Name)}


def _changes(node: ast.AST, source: str, dictionaries: set[str]) -> list[tuple[Place, Place, str, str]]:
    """(start, end, text, name it needs) of what Python 3.8 lacks in one node.  Code nested in a change stays as it is: the two kinds that
    could be nested so do not occur, and the checks of reproduce would find them."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
        receiver, *arguments = (_text(source, each) for each in (node.func.value, *node.args))
        return [(*_span(node), f"{node.func.attr}({receiver}, {', '.join(arguments)})", node.func.attr)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and any(
            isinstance(side, ast.Dict) or getattr(side, "id", "") in dictionaries for side in (node.left, node.right)):
        left, right = (_text(source, side) for side in (node.left, node.right))
        return [(*_span(node), f"union({left}, {right})", "union")]
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript) and isinstance(alias := node.value.value, ast.Name):
        return [(*_span(node.value), alias.id, "")] if alias.id in _GENERIC else []     # a type alias: Pair = tuple[int, int]
    if isinstance(node, ast.ExceptHandler) and node.type is not None:
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        if any(isinstance(each, ast.Name) and each.id == "TimeoutError" for each in caught):
            others = "".join(f", {_text(source, each)}" for each in caught if getattr(each, "id", "") != "TimeoutError")
            return [(*_span(node.type), f"(*TIMEOUT{others})" if others else "TIMEOUT", "TIMEOUT")]
    return []


def _text(source: str, node: ast.expr) -> str:
    return ast.get_source_segment(source, node) or ""


def _span(node: ast.expr | ast.stmt) -> tuple[Place, Place]:
    assert node.end_lineno is not None and node.end_col_offset is not None      # the parser has set them
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def _with_imports(source: str, tree: ast.Module, names: list[str]) -> str:
    """Put imports on the last line of the docstring, so that all other lines keep their numbers."""
    has_future = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    wanted = [] if has_future else ["from __future__ import annotations"]
    wanted += [f"from repro.compat import {', '.join(names)}"] if names else []
    if not wanted or not tree.body:
        return source
    lines = source.splitlines(keepends=True)
    first = tree.body[0]
    if has_future:
        first = next(node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__")
    elif not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)):
        lines[0] = "; ".join(wanted) + "; " + lines[0]
        return "".join(lines)
    at = _span(first)[1][0] - 1
    lines[at] = lines[at].rstrip("\n") + "; " + "; ".join(wanted) + "\n"
    return "".join(lines)
