# Runs the tests. The program is in another process (requests on descriptor 5, answers on descriptor
# 6): only plain values come from there, and every comparison is made here. The suite is read from
# descriptor 3, and a verdict for each test is written to descriptor 4.
import ast
import builtins
import importlib


class Dead(BaseException):
    """The process of the program has ended, or its answer is invalid."""


class Broken(Exception):
    """The test itself cannot be run, regardless of the program."""


class ProgramError(Exception):
    """The program raised an exception that is not built into Python."""


class Program:
    """The process of the program."""

    def __init__(self):
        self.requests, self.answers = os.fdopen(5, "wb"), os.fdopen(6, "rb")
        self.dead = False
        self.asked = 0

    def ask(self, request):
        self.asked += 1
        try:
            if self.dead:
                raise Dead("the program has ended")
            write_line(self.requests, request)
            line = self.answers.readline(1 << 26)
            if not line.endswith(b"\n"):
                raise Dead("the program has ended")
            answer = json.loads(line)
            if not isinstance(answer, dict):
                raise Dead("not an answer")
            return answer
        except Exception as error:
            self.dead = True
            raise Dead(type(error).__name__)
        except Dead:
            self.dead = True
            raise

    def value(self, answer):
        if "x" in answer:
            raise NameError(f"the program has no {answer['x']!r}")
        if "e" in answer:
            kind = getattr(builtins, str(answer["e"]), None)
            message = str(answer.get("a"))
            if isinstance(kind, type) and issubclass(kind, Exception):
                try:
                    error = kind(message)
                except Exception:
                    error = ProgramError(message)
                raise error
            raise ProgramError(f"{answer['e']}: {message}")
        try:
            return decode(answer["v"], self.thing)
        except (Exception, RecursionError) as error:
            self.dead = True
            raise Dead(type(error).__name__)

    def thing(self, tag, inside):
        raise ValueError(tag)

    def look_up(self, name):
        answer = self.ask({"name": name})
        inside = answer.get("v")
        if isinstance(inside, dict) and "h" in inside:
            return Thing(self, {"name": name}, {"g": name}) if inside.get("call") else thing_of(self, inside)
        return self.value(answer)


def thing_of(program, inside):
    number = int(inside["h"])
    return Thing(program, {"id": number}, {"h": number})


class Thing:
    """An object of the program that is not a plain value.

    It can be called and its attributes can be read. It equals only itself.
    """

    def __init__(self, program, place, reference):
        self.__dict__.update(_program=program, _place=place, _reference=reference)

    def __call__(self, *args, **named):
        request = dict(self._place) if "name" in self._place else dict(self._place, attribute="__call__")
        return invoke(self._program, request, args, named)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if "name" in self._place:
            request = {"name": f"{self._place['name']}.{name}"}
        else:
            request = dict(self._place, attribute=name)
        answer = self._program.ask(request)
        inside = answer.get("v")
        if isinstance(inside, dict) and inside.get("call") is True and "h" in inside:
            return Method(self._program, request)
        return read(self._program, answer)


class Method:
    """A method of an object of the program."""

    def __init__(self, program, request):
        self.__dict__.update(_program=program, _request=request)

    def __call__(self, *args, **named):
        return invoke(self._program, dict(self._request), args, named)


def unsendable(value):
    if isinstance(value, Thing):
        return value._reference
    if isinstance(value, Method):
        # Not an error of the test: the program made it a method.
        raise TypeError("a method is not a value")
    raise Broken(f"the test passes a value of type {type(value).__name__}")


def read(program, answer):
    inside = answer.get("v")
    if isinstance(inside, dict) and "h" in inside:
        return thing_of(program, inside)
    return program.value(answer)


def invoke(program, request, args, named):
    request["args"] = [encode(one, unsendable) for one in args]
    request["kwargs"] = [[name, encode(one, unsendable)] for name, one in named.items()]
    answer = program.ask(request)
    value = read(program, answer)
    changed = answer.get("m")
    if isinstance(changed, list) and len(changed) == len(args):
        for arg, new in zip(args, changed):
            update(program, arg, new)
    return value


def update(program, arg, new):
    """Applies the changes of the program to a list, dict or set that it received."""
    if new is None or type(arg) not in (list, dict, set):
        return
    try:
        new = decode(new, program.thing)
    except Exception:
        return
    if type(new) is type(arg):
        arg.clear()
        arg.extend(new) if type(arg) is list else arg.update(new)


class Names(dict):
    """The names of the tests: their own, then those of Python, then those of the program."""

    def __init__(self, program, entry_point):
        super().__init__(__name__="tests", __builtins__=builtins)
        self.program, self.entry_point = program, entry_point
        self.tested, self.modules = set(), set()
        # Names that the tests have bound to values that may come from the program.
        self.derived = set()
        # Names of built-in functions that the program defines, and does not, in the current test.
        self.had, self.lacked = set(), set()

    def __missing__(self, name):
        if name == self.entry_point:
            return self.program.look_up(name)
        if hasattr(builtins, name):
            if name not in self.tested or self.entry_point is not None:
                raise KeyError(name)
            try:
                found = self.program.look_up(name)
            except NameError:
                self.lacked.add(name)
                raise KeyError(name) from None
            self.had.add(name)
            return found
        if name in self.modules:
            # Not taken from the program, which could have replaced it.
            self[name] = importlib.import_module(MODULES.get(name, name))
            return self[name]
        if self.entry_point is not None:
            raise Broken(
                f"the tests use {name!r}, which neither they nor Python define; "
                "put it into `prelude` or `setup`"
            )
        return self.program.look_up(name)


MODULES = {name: name for name in getattr(sys, "stdlib_module_names", ())} | {"np": "numpy", "numpy": "numpy"}


def modules(tree):
    """Names before a dot that are modules."""
    bases = (node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {base.id for base in bases if isinstance(base, ast.Name) and base.id in MODULES}


def bound(tree):
    """Names that the code binds."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler)):
            found.add(node.name)
    return found


def of_the_program(tree, names):
    """Names that refer to the program, or to a value that an earlier test received from it."""
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    foreign = {name for name in read if not hasattr(builtins, name)} - bound(tree) - names.modules
    return {name for name in foreign if name in names.derived or name not in names}


def called(tree):
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {node.func.id for node in calls if isinstance(node.func, ast.Name)}


def execute(code, tree, names):
    """Runs code of the tests and records which names may now hold values of the program."""
    asked = names.program.asked
    try:
        exec(code, names)
    finally:
        if names.program.asked != asked or of_the_program(tree, names):
            names.derived |= bound(tree)


def run(code, tree, foreign, names):
    """Returns None if the test passes, else the reason for the failure."""
    program = names.program
    asked = program.asked
    names.had, names.lacked = set(), set()
    try:
        execute(code, tree, names)
    except Broken:
        raise
    except Dead as error:
        return f"{error}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    if program.dead:
        return "the program has ended"
    if names.lacked and not names.had:
        # The test called only a built-in function, and nothing of the program.
        return f"NameError: the program has no {min(names.lacked)!r}"
    if program.asked == asked and not foreign:
        raise Broken("the test passes without calling the program")
    return None


def verdict_of(text, tree, names):
    try:
        # If all names of a test are built in or its own, it tests the program's function of that
        # name.
        foreign = of_the_program(tree, names)
        names.tested = set() if foreign else called(tree)
        why = run(compile(text, "<test>", "exec"), tree, foreign, names)
        return {"pass": why is None, "why": why}
    except Broken as error:
        return {"broken": f"{error}"}
    except RecursionError:
        return {"pass": False, "why": "RecursionError"}


def main():
    with os.fdopen(3, "rb") as file:
        suite = json.loads(file.read())
    verdicts = os.fdopen(4, "wb")
    write_line(verdicts, {"started": True})
    program = Program()
    names = Names(program, suite["entry_point"])
    try:
        tests = [(text, ast.parse(text)) for text in suite["tests"]]
        setup = [(text, ast.parse(text)) for text in suite["setup"]]
        for _, tree in tests + setup:
            names.modules |= modules(tree)
    except Exception as error:
        write_line(verdicts, {"broken": f"the tests cannot be read: {type(error).__name__}: {error}"})
        os._exit(0)
    # Answered once the program has been loaded.
    try:
        program.ask({"name": "__name__"})
    except Dead:
        write_line(verdicts, {"loaded": False})
        os._exit(0)
    write_line(verdicts, {"loaded": True})
    program.asked = 0
    try:
        for text, tree in setup:
            execute(compile(text, "<setup>", "exec"), tree, names)
        names.pop(suite["entry_point"], None)
    except BaseException as error:
        if program.asked and not isinstance(error, Broken):
            why = f"the setup failed: {type(error).__name__}: {error}"
            for _ in tests:
                write_line(verdicts, {"pass": False, "why": why})
        else:
            write_line(verdicts, {"broken": f"the setup failed: {type(error).__name__}: {error}"})
        os._exit(0)
    for text, tree in tests:
        write_line(verdicts, dict(verdict_of(text, tree, names), dead=program.dead))
        if program.dead:
            break
    os._exit(0)


main()
