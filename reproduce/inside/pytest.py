"""The part of pytest that the cases use, for a machine without pytest. Python 3.8."""

import inspect
import re
import socket


class Skipped(BaseException):
    """The machine lacks what the case needs."""


class Failed(BaseException):
    """pytest.fail(), or nothing raised in pytest.raises()."""


class UsageError(Exception):
    pass


def skip(reason):
    raise Skipped(reason)


def fail(reason="", pytrace=True):
    raise Failed(reason)


class Param:
    def __init__(self, values, marks, id):
        self.values, self.marks, self.id = values, marks, id


def param(*values, marks=(), id=None):
    return Param(values, tuple(marks) if isinstance(marks, (list, tuple)) else (marks,), id)


class Mark:
    """`@pytest.mark.NAME` or `@pytest.mark.NAME(...)`; a function keeps its marks in `pytestmark`."""

    def __init__(self, name, args=(), kwargs=None):
        self.name, self.args, self.kwargs = name, args, kwargs or {}

    def __call__(self, *args, **kwargs):
        if len(args) == 1 and not kwargs and inspect.isfunction(args[0]):
            args[0].pytestmark = [*getattr(args[0], "pytestmark", []), self]
            return args[0]
        if self.name == "parametrize":          # the runner reads the values again
            args = (args[0], list(args[1]), *args[2:])
        return Mark(self.name, args, kwargs)


class _Marks:
    def __getattr__(self, name):
        return Mark(name)


mark = _Marks()


class Fixture:
    def __init__(self, function, params):
        self.function, self.params = function, params


def fixture(function=None, params=None, ids=None, autouse=False, scope="function", name=None):
    if function is not None:
        return Fixture(function, None)
    return lambda function: Fixture(function, None if params is None else list(params))


def hookimpl(*args, **kwargs):
    return args[0] if args else lambda function: function


class StashKey:
    def __class_getitem__(cls, _kind):
        return cls


class _Raises:
    def __init__(self, expected, match):
        # Before Python 3.10 socket.timeout was a separate error.
        listed = expected if isinstance(expected, tuple) else (expected,)
        self.expected = (*listed, socket.timeout) if TimeoutError in listed else listed
        self.match = match

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        names = ", ".join(each.__name__ for each in self.expected)
        if kind is None:
            raise Failed("DID NOT RAISE %s" % names)
        if not issubclass(kind, self.expected):
            return False
        self.type, self.value = kind, value
        if self.match and not re.search(self.match, str(value)):
            raise AssertionError("%s does not match %r: %r" % (names, self.match, str(value)))
        return True


def raises(expected, match=None):
    return _Raises(expected, match)


class approx:
    """Equal within `rel` of the expected value or within `abs`, whichever is more."""

    def __init__(self, expected, rel=None, abs=None):
        self.expected = expected
        relative = (1e-6 if rel is None and abs is None else rel or 0) * _size(expected)
        self.tolerance = max(relative, 1e-12 if abs is None else abs)

    def __eq__(self, seen):
        return _size(seen - self.expected) <= self.tolerance

    def __repr__(self):
        return "%r ± %g" % (self.expected, self.tolerance)


_size = abs
# Used in annotations only.
Item = Parser = FixtureRequest = TestReport = CallInfo = Config = MonkeyPatch = object
