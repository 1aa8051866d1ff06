# Loads the program and calls its functions, as requested on descriptor 3; answers on descriptor 4.
# The program shares this process and may do anything to it. Nothing here is secret, and an answer
# is never more than a value.


def describe(error):
    try:
        message = str(error)[:1000]
    except BaseException:
        message = ""
    return {"e": type(error).__name__, "a": message}


def resolve(space, name):
    first, _, rest = name.partition(".")
    if first in space:
        found = space[first]
    elif "Solution" in space:
        found = getattr(space["Solution"](), first)
    else:
        raise LookupError(name)
    for part in rest.split(".") if rest else ():
        found = getattr(found, part)
    return found


def serve(path):
    requests, answers = os.fdopen(3, "rb"), os.fdopen(4, "wb")
    kept = []

    def keep(value):
        kept.append(value)
        return {"h": len(kept) - 1, "k": type(value).__name__, "call": callable(value)}

    def known(tag, inside):
        if tag == "h":
            return kept[inside]
        if tag == "g":
            return resolve(space, inside)
        raise ValueError(tag)

    def answer(request):
        if "name" in request:
            try:
                found = resolve(space, request["name"])
            except LookupError:
                return {"x": request["name"]}
        else:
            found = getattr(kept[request["id"]], request["attribute"])
        if "args" not in request:
            return {"v": keep(found) if callable(found) else encode(found, keep)}
        args = [decode(one, known) for one in request["args"]]
        named = {name: decode(one, known) for name, one in request["kwargs"]}
        value = encode(found(*args, **named), keep)
        changed = [encode(one, keep) if type(one) in (list, dict, set) else None for one in args]
        return {"v": value, "m": changed}

    module = types.ModuleType("solution")
    space = module.__dict__
    sys.modules["solution"] = module
    failure = None
    try:
        with open(path, "rb") as file:
            source = file.read()
        exec(compile(source, path, "exec"), space)
    except BaseException as error:
        failure = describe(error)
    for line in requests:
        try:
            found = failure or answer(json.loads(line))
            text = json.dumps(found).encode() + b"\n"
        except BaseException as error:
            text = json.dumps(describe(error)).encode() + b"\n"
        answers.write(text)
        answers.flush()
    os._exit(0)


serve(sys.argv[1])
