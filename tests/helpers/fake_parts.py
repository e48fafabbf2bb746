"""Stands in for the recipes that a reproduction launches: `fake_parts.py TEMPLATES COMMAND --output_dir X ...`.

Each copies what its command leaves from a folder of templates. What goes wrong is told by files in that folder:
`refused`, `crashes` and `hangs` hold the names of parts' folders. Every launch leaves a line in `launches.txt` there.
"""

import shutil
import signal
import sys
import time
from pathlib import Path


def listed(file: Path) -> list[str]:
    return file.read_text().split() if file.is_file() else []


def main(templates: Path, command: str, words: list[str]) -> int:
    folder = Path(words[words.index("--output_dir") + 1])
    name = folder.name
    with (templates / "launches.txt").open("a") as log:
        log.write(f"{command} {name}\n")
    times = (templates / "launches.txt").read_text().split("\n").count(f"{command} {name}")
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{command} works on {name} [/INST]", flush=True)
    if name in listed(templates / "refused"):
        print("recipe.py: size is not to its liking.", file=sys.stderr)
        return 2
    if name in listed(templates / "crashes") and (times == 1 or name in listed(templates / "always")):
        raise RuntimeError("out of memory at [/INST]")
    if name in listed(templates / "hangs"):
        signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
        time.sleep(600)
    for path in (templates / command).iterdir():
        target = folder / path.name
        shutil.copytree(path, target, dirs_exist_ok=True) if path.is_dir() else shutil.copy(path, target)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
