"""Which inputs a corpus keeps."""

# Of a corpus in the repository, in files.
CORPUS_MAX = 48


def most_covering(control):
    """The files of libFuzzer's control file, each the one that adds most to those before it, up to
    the size of a corpus. The file lists their number, that of the first corpus, their paths, and
    for each a line `FT index feature…`."""
    count, _, *rest = control.splitlines()
    files = rest[:int(count)]
    reached = {}
    for line in rest[int(count):]:
        kind, index, *features = line.split()
        if kind == "FT":
            reached[int(index)] = set(features)
    chosen, covered = [], set()
    while reached and len(chosen) < CORPUS_MAX:
        best = max(reached, key=lambda index: len(reached[index] - covered))
        added = reached.pop(best) - covered
        if not added:
            break
        covered |= added
        chosen.append(files[best])
    return chosen
