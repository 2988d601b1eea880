"""README's programs run as they stand, and every command in it is one that is run."""

import os
import re
import shlex
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
#: Commands within the text.
INLINE = sorted(set(re.findall(r"`((?:python|pip) [^`]+)`", README)))

#: The suite itself: ``.ci/run`` types it as it stands in README.
SUITE = "pip install -e '.[test]' && python -m pytest"


def test_programs_run_as_printed(capsys):
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(code, "README.md", "exec"), {})
    assert float(capsys.readouterr().out) > 0.95


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            titles = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
            assert target[1:] in [title.lower().replace(" ", "-") for title in titles]
        else:
            assert (ROOT / target).exists(), target


def test_ci_types_the_suites_command():
    assert SUITE in COMMANDS
    assert "readme test" in (ROOT / ".ci" / "run").read_text().splitlines()


def without_pytest(variables):
    """Of a shell: the benchmarks run pytest themselves, and would think it is theirs."""
    return {k: v for k, v in variables.items() if not k.startswith("PYTEST_")}


def environment(folder):
    """Variables of a shell in which a new, empty environment is active."""
    venv.create(folder, with_pip=True)
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    kept = without_pytest(os.environ)
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        kept.pop(name, None)
    cache = {"NUMBA_CACHE_DIR": str(folder / "numba-cache"), "MPLBACKEND": "Agg"}
    return {**kept, "PATH": path, **cache}


def typed(command, **options):
    """What a command prints, typed into a shell; it has to succeed."""
    result = subprocess.run(
        command,
        shell=True,
        executable="/bin/bash",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
    assert result.returncode == 0, result.stdout[-5000:]
    return result.stdout


@pytest.fixture
def clone(tmp_path):
    """A copy of what the repository has, as a stranger's machine would get it."""
    folder = tmp_path / "fastbp"
    files = typed("git ls-files -z --cached --others --exclude-standard", cwd=ROOT)
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", [line for line in COMMANDS if line != SUITE])
def test_commands_as_a_newcomer_types_them(command, clone, tmp_path):
    typed(command, cwd=clone, env=environment(tmp_path / "environment"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("command", INLINE)
def test_commands_within_the_text(command, clone, tmp_path):
    """In this environment, but for pip's; the longest with the shortest of its work."""
    shorter = {
        # this is one of them; that they are found is enough
        "python -m pytest -m slow": "python -m pytest -m slow --collect-only -q",
        # an hour or two
        "python -m benchmarks fits --all": "python -m benchmarks fits --all "
        "--keyword 'digits and float32' --rounds 0.1",
    }
    variables = without_pytest(os.environ)
    variables |= {"PYTHONPATH": str(clone), "MPLBACKEND": "Agg"}
    if command.startswith("pip"):
        variables = environment(tmp_path / "environment")
    else:
        python = shlex.quote(sys.executable)
        command = shorter.get(command, command).replace("python", python, 1)
    assert typed(command, cwd=clone, env=variables)
