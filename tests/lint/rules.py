# SPDX-License-Identifier: BSD-3-Clause
"""The lints that are the project's own. Each takes a tree and yields findings 'path:line: what'."""
import os
import re
import shutil
import subprocess
import tempfile

FLOORS = {
    "util": 0, "media": 1, "dax": 1, "txn": 2, "btree": 3, "space": 4, "fs": 5,
    "registry": 6, "repair": 6, "fuse": 7, "daemon": 8,
}
# Folders of src/ that stand beside the floors, and what they may include.
BESIDE = {"client": {"client", "util", "media"}}

MAX_FUNCTION_LINES = 70
MAX_FILE_LINES = 800

# (what it is, expression on code without comments and strings, where it may stand)
FORBIDDEN = [
    ("libfuse", r'#\s*include\s*<(fuse|fuse3/|linux/fuse)[\w./]*>', ("src/fuse/",)),
    # src/fuse/ring.c: what it shares with the kernel, no pool
    ("mapping memory", r'#\s*include\s*<sys/mman\.h>|\b(mmap|mmap64|munmap|mremap|mprotect|msync|madvise)\s*\(',
     ("src/dax/", "src/client/", "src/fuse/ring.c")),
    ("libpmem", r'#\s*include\s*<libpmem\.h>|\bpmem_\w+\s*\(', ("src/dax/", "src/client/")),
    ("device discovery", r'#\s*include\s*<(daxctl|ndctl)/', ("src/dax/",)),
    ("cache flush or fence instruction", r'\b_mm_(clflush|clflushopt|clwb|sfence|mfence|stream_\w+)\s*\(|'
     r'\b__builtin_ia32_(clflush|clwb|sfence|mfence|movnt)\w*\s*\(', ("src/dax/",)),
    ("SIGBUS", r'\bSIGBUS\b', ("src/dax/", "src/client/")),
]
# The floor that describes the media does no I/O and allocates nothing.
MEDIA_PURE = r'#\s*include\s*<(stdio|fcntl|unistd|pthread)\.h>|\b(malloc|calloc|realloc|free|strdup|pthread_\w+)\s*\('


def walk(root, *folders):
    """(path from root, text) of every text file in these folders."""
    for folder in folders:
        for where, names, files in os.walk(os.path.join(root, folder)):
            names[:] = sorted(n for n in names if n not in (".git", "__pycache__", "corpus", "samples"))
            for name in sorted(files):
                path = os.path.join(where, name)
                if os.path.islink(path):
                    continue
                try:
                    with open(path, encoding="utf-8") as f:
                        yield os.path.relpath(path, root), f.read()
                except UnicodeDecodeError:
                    continue


def is_c(path):
    return path.endswith((".c", ".h"))


def is_script(text):
    return re.match(r"#!.*\b(ba|da)?sh\b", text) is not None


def without_comments(text, strings_too=True):
    """The same text, line for line, with comments (and what stands in quotes) blanked."""
    pattern = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''

    def blank(match):
        piece = match.group(0)
        if piece[0] in "\"'":
            return piece if not strings_too else piece[0] + piece[0]
        return re.sub(r"[^\n]", " ", piece)

    return re.sub(pattern, blank, text, flags=re.S)


def hits(path, text, expression):
    for number, line in enumerate(text.split("\n"), 1):
        match = re.search(expression, line)
        if match:
            yield f"{path}:{number}", match


def include_trouble(here, included):
    """Why code in src/<here>/ may not include "included", or None."""
    if "/" not in included or included.startswith("."):
        return f'write #include "floor/file.h", not "{included}"'
    there = included.split("/")[0]
    if here in BESIDE:
        return None if there in BESIDE[here] else f"{here} may not include {there}"
    if here not in FLOORS:
        return f"src/{here} is no floor"
    if there not in FLOORS:
        return f'"{included}" is on no floor'
    if there != here and FLOORS[there] >= FLOORS[here]:
        return f"{here} (floor {FLOORS[here]}) includes {there} (floor {FLOORS[there]})"
    return None


def lint_floors(root):
    for path, text in walk(root, "src", "include"):
        if not is_c(path):
            continue
        code = without_comments(text, strings_too=False)
        for place, match in hits(path, code, r'^\s*#\s*include\s*"([^"]*)"'):
            if path.startswith("include/"):
                yield f"{place}: a public header includes nothing of the inside"
                continue
            trouble = include_trouble(path.split("/")[1], match.group(1))
            if trouble:
                yield f"{place}: {trouble}"


def lint_forbidden(root):
    for path, text in walk(root, "src", "tools", "include"):
        if not is_c(path):
            continue
        code = without_comments(text, strings_too=False)
        for what, expression, places in FORBIDDEN:
            if path.startswith(places):
                continue
            for place, match in hits(path, code, expression):
                yield f"{place}: {what} ({match.group(0).strip()}) belongs in {' or '.join(places)}"
        if path.startswith("src/media/"):
            for place, match in hits(path, code, MEDIA_PURE):
                yield f"{place}: src/media does no I/O and allocates nothing ({match.group(0).strip()})"


def functions(lines):
    """(name, line, length) of each function: '{' and '}' stand alone in column 0."""
    start, name = 0, ""
    for number, line in enumerate(lines, 1):
        if line.startswith("{"):
            names = re.findall(r"(\w+)\s*\(", " ".join(lines[max(0, number - 6):number - 1]))
            start, name = number, names[-1] if names else "?"
        elif line.startswith("}") and start:
            yield name, start, number - start - 1
            start = 0


def lint_size(root):
    for path, text in walk(root, "src", "include", "tools", "tests"):
        lines = text.rstrip("\n").split("\n")
        if not is_c(path) and not is_script(text):
            continue
        if len(lines) > MAX_FILE_LINES:
            yield f"{path}:1: {len(lines)} lines, at most {MAX_FILE_LINES}"
        if not is_c(path):
            continue
        for name, number, length in functions(lines):
            if length > MAX_FUNCTION_LINES:
                yield f"{path}:{number}: {name} has {length} lines, at most {MAX_FUNCTION_LINES}"


def lint_spdx(root):
    for path, text in walk(root, "src", "include", "tools", "tests", ".ci"):
        is_source = is_c(path) or path.endswith((".py", "meson.build")) or text.startswith("#!")
        if is_source and "SPDX-License-Identifier: BSD-3-Clause" not in "\n".join(text.split("\n")[:2]):
            yield f"{path}:1: no SPDX line"


def lint_markers(root):
    for path, text in walk(root, "src", "include", "tools"):
        for place, match in hits(path, text, r"\b(TODO|FIXME|XXX)\b"):
            yield f"{place}: {match.group(1)}: do it, or write it down where it is seen"


# A field of a struct of the format as C declares it, and its row in FORMAT.md: | off | size | `name` | what it is |
FIELD = re.compile(r"(\w+)\s*(\[[^;]*\])?$")
ROW = re.compile(r"^\|\s*(\d+)\s*\|\s*(\d+|…)\s*\|\s*`(\w+)`\s*\|", re.M)


def media_structs(root):
    """(path, struct, [(field, has it a size)]) of every struct m_*."""
    for path, text in walk(root, "src/media"):
        for name, body in re.findall(r"^struct (m_\w+) \{\n(.*?)^\};", without_comments(text), re.S | re.M):
            pieces = [piece.strip() for piece in body.replace(",", ";").split(";")]
            fields = [FIELD.search(piece) for piece in pieces if piece]
            yield path, name, [(f.group(1), (f.group(2) or "").replace(" ", "") != "[]") for f in fields]


def compiled_fields(root, structs, compiler):
    """{field: (offset, size or …)} of all of them, as the compiler lays them out."""
    source = "#include <stdio.h>\n#include <stddef.h>\n#include <stdint.h>\n"
    source += "".join(f'#include "{path[len("src/"):]}"\n' for path in sorted({path for path, _, _ in structs}))
    source += "int main(void)\n{\n"
    for _, name, fields in structs:
        for field, has_size in fields:
            size = f"sizeof(((struct {name} *)0)->{field})" if has_size else "(size_t)0"
            source += f'printf("{field} %zu %zu\\n", offsetof(struct {name}, {field}), {size});\n'
    with tempfile.TemporaryDirectory() as work:
        program = os.path.join(work, "fields")
        subprocess.run([compiler, "-std=gnu11", "-Isrc", "-Iinclude", "-xc", "-", "-o", program], cwd=root, text=True,
                       input=source + "return 0;\n}\n", check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = {}
    for line in said.splitlines():
        field, off, size = line.split()
        found[field] = (off, "…" if size == "0" else size)
    return found


def lint_format_doc(root):
    """FORMAT.md has each field of each struct of the media, at its place and with its size, and no other."""
    doc = "docs/FORMAT.md"
    structs = [s for s in media_structs(root) if s[1] != "m_uuid"]
    if not structs:
        return
    try:
        with open(os.path.join(root, doc), encoding="utf-8") as f:
            text = f.read()
    except FileNotFoundError:
        yield f"{doc}:1: is not there"
        return
    rows = {}
    for match in ROW.finditer(text):
        rows[match.group(3)] = (text.count("\n", 0, match.start()) + 1, match.group(1), match.group(2))
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    compiled = compiled_fields(root, structs, compiler) if compiler else {}
    for path, name, fields in structs:
        for field, _ in fields:
            if field not in rows:
                yield f"{doc}:1: no row for {field} of struct {name} ({path})"
            elif compiled and compiled[field] != rows[field][1:]:
                yield (f"{doc}:{rows[field][0]}: {field} lies at {compiled[field][0]} and has {compiled[field][1]} bytes,"
                       f" not {rows[field][1]} and {rows[field][2]}")
    known = {field for _, _, fields in structs for field, _ in fields}
    for field, (line, _, _) in rows.items():
        if field not in known:
            yield f"{doc}:{line}: no struct has a field {field}"


def shell_scripts(root):
    return [path for path, text in walk(root, "tools", "tests", ".ci") if is_script(text)]


def c_files(root):
    return [path for path, text in walk(root, "src", "include", "tools", "tests") if is_c(path)]
