"""The text of the single file's `__main__.py`.

It is text because Pythons that cannot run the product must parse it, to say so or to find a newer
one: no annotations, no f-strings, nothing later than 2.7 outside of a function. It is compiled at
every start, so it is short, and leaves the rest to `start.py`, which is compiled when built.
"""

MAIN = '''\
"""Starts claude-peers out of this file; made by build_zipapp.py. Old Pythons must parse it."""

import os
import sys

BUILD = "@BUILD@"
CODE = @CODE@
LAYERS = @LAYERS@
ARCHIVE = os.path.dirname(os.path.abspath(__file__))


def works(python):
    question = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    with open(os.devnull, "r+b") as null:
        try:
            return subprocess.call(question, stdin=null, stdout=null, stderr=null) == 0
        except OSError:
            return False


def newer_python():
    for minor in (14, 13, 12, 11):
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            python = os.path.join(folder, "python3.%d" % minor)
            if os.path.isabs(python) and os.access(python, os.X_OK) and works(python):
                return python


class Layers(object):
    """Has a layer unpacked when a name in it is first imported."""

    def __init__(self, origin, home):
        self.origin, self.home = origin, home

    def find_spec(self, name, path=None, target=None):
        if name in LAYERS:
            from claude_peers.bundle.layers import mount

            mount(LAYERS, name, self.origin, self.home)


def start():
    from importlib.util import MAGIC_NUMBER
    from zipimport import zipimporter

    code = CODE.get(MAGIC_NUMBER.hex(), "src")
    module = {"__name__": "claude_peers.bundle.start"}
    folder = os.path.join(ARCHIVE, code, "claude_peers", "bundle")
    exec(zipimporter(folder).get_code("start"), module)
    origin, home = module["start"](code, build=BUILD, archive=ARCHIVE)
    sys.meta_path.insert(0, Layers(origin, home))
    globals().update(__file__=os.path.join(origin, "__main__.py"), __loader__=zipimporter(origin))


if __name__ == "__main__":
    if sys.version_info < (3, 11):
        import subprocess

        python = os.name == "posix" and newer_python()
        if python:
            os.execv(python, [python, ARCHIVE] + sys.argv[1:])
        sys.exit(
            "claude-peers needs Python 3.11 or newer; this is %d.%d (%s), and no python3.11 to "
            "python3.14 is on the PATH. Install one, or name it: python3.12 %s"
            % (sys.version_info[:2] + (sys.executable, sys.argv[0]))
        )
    start()
    from claude_peers.__main__ import main

    main()
'''
