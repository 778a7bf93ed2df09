"""The mutants that compute the same, each with its proof.

An entry is a header ``file function operator``, the statement before (``-``) and after (``+``; more
than one if the proof is the same), and the proof. The proof "random" makes the script run 10⁴
random inputs and require agreement. The second and later mutants with the same texts in one
function have the operator ``name#2`` and so on. An entry that fits no mutant, or one that is
killed, is an error.
"""

_ENTRIES = """"""

Key = tuple[str, ...]


def proofs() -> dict[Key, str]:
    """Return the proofs by `mutants.Mutant.key`: file, function, operator, before, after."""
    found: dict[Key, str] = {}
    for entry in filter(None, _ENTRIES.strip().split("\n\n")):
        header, *lines = entry.split("\n")
        proof = " ".join(line for line in lines if line[:2] not in ("- ", "+ "))
        before = ""
        for line in lines:
            if line.startswith("- "):
                before = line[2:]
            elif line.startswith("+ "):
                found[*header.split(), before, line[2:]] = proof
    return found
