"""Manual pages of programs that only print their options. Those of the programs in Rust come from
the definitions of their command lines (pages/)."""

import time


def page(name, about, usage, epoch):
    """A page of section 1 that holds what `--help` prints."""
    date = time.strftime("%Y-%m-%d", time.gmtime(epoch))
    lines = [line.replace("\\", "\\e").replace("-", "\\-") for line in usage.splitlines()]
    lines = ["\\&" + line if line.startswith((".", "'")) else line for line in lines]
    about = about.replace("-", "\\-")
    title = name.replace("-", "\\-")
    return "\n".join([f'.TH "{name.upper()}" "1" "{date}"', ".SH NAME", f"{title} \\- {about}",
                      ".SH USAGE", ".nf", *lines, ".fi", ""])
