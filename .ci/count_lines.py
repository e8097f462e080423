"""Count the lines of code, now and at a revision; print both and the difference.

    python .ci/count_lines.py [REVISION]

A line of code holds at least one token that is neither a comment nor a docstring. Generated files,
styles and pages are left out.
"""

import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path

FOLDERS = ("services", "clients", "model_training", ".ci")
GENERATED = "clients/typescript/src/schema.ts"
# What opens a comment, by the end of the file's name.
COMMENTS = {".py": "#", ".sh": "#", "run": "#", ".lua": "--", ".js": "//", ".ts": "//"}
BLOCK_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT}


def python_lines(source: str) -> int:
    """Lines with code. A docstring is a statement of nothing but strings."""
    lines: set[int] = set()
    statement: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NEWLINE:
            if any(each.type != tokenize.STRING for each in statement):
                lines.update(n for each in statement for n in range(each.start[0], each.end[0] + 1))
            statement = []
        elif token.type not in LAYOUT:
            statement.append(token)
    return len(lines)


def other_lines(source: str, comment: str) -> int:
    """Lines that are neither blank nor a comment."""
    if comment == "//":
        source = BLOCK_COMMENT.sub("", source)
    stripped = (line.strip() for line in source.splitlines())
    return sum(1 for line in stripped if line and not line.startswith(comment))


def git(*arguments: str) -> str:
    """What git prints."""
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


def count(revision: str | None) -> Counter[str]:
    """Lines of code by top folder; of the working tree if there is no revision."""
    listing = (
        ["ls-tree", "-r", "--name-only", revision]
        if revision
        else ["ls-files", "-co", "--exclude-standard"]
    )
    found: Counter[str] = Counter()
    for path in git(*listing, "--", *FOLDERS).splitlines():
        comment = COMMENTS.get(Path(path).suffix or Path(path).name)
        if comment is None or path == GENERATED or not (revision or Path(path).exists()):
            continue
        source = git("show", f"{revision}:{path}") if revision else Path(path).read_text("utf-8")
        is_python = path.endswith(".py")
        lines = python_lines(source) if is_python else other_lines(source, comment)
        found[path.partition("/")[0]] += lines
    return found


def main() -> None:
    """Print the counts."""
    now = count(None)
    print(f"{now.total():6} now {dict(now)}")
    for revision in sys.argv[1:]:
        then = count(revision)
        change = {folder: now[folder] - then[folder] for folder in FOLDERS}
        print(f"{then.total():6} at {revision} {dict(then)}")
        print(f"{now.total() - then.total():+6} since {revision} {change}")


if __name__ == "__main__":
    main()
