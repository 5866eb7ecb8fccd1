#!/usr/bin/env python3
"""Counts the instructions of the hot paths (benches/instructions.rs) and holds them against benches/instructions.json.

  instructions.py            fails when a path takes over 10 % more than its baseline
  instructions.py --update   writes the baseline anew; commit it with the change that explains it

Counted is the `dev` profile, which the tests build anyway: it shows work that a change adds, not what a release takes.
Another compiler makes other code: with one the baseline was not made with, counts are shown and nothing fails.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BASELINE = ROOT / "benches" / "instructions.json"
TOLERANCE = 0.10


def output(*command):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def built():
    """The path of the bench's binary."""
    lines = output("cargo", "build", "--locked", "--bench", "instructions", "--message-format=json").splitlines()
    for message in map(json.loads, lines):
        if message.get("reason") == "compiler-artifact" and message["target"]["name"] == "instructions":
            return message["executable"]
    sys.exit("instructions.py: cargo built no bench of that name")


def count(binary, case):
    """Instructions for each unit of a case."""
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "callgrind.out")
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=instructions::measured*",
             f"--callgrind-out-file={report}", binary, case],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found or int(found.group(1)) == 0:
        sys.exit(f"instructions.py: {case} was not counted:\n{done.stderr}")
    return round(int(found.group(1)) / int(done.stdout))


def main():
    update = sys.argv[1:] == ["--update"]
    if sys.argv[1:] and not update:
        sys.exit(__doc__)
    compiler = output("rustc", "--version").strip()
    machine = os.uname().machine
    binary = built()
    cases = dict(line.split("\t") for line in output(binary).splitlines())
    counts = {case: count(binary, case) for case in cases}
    if update:
        BASELINE.write_text(json.dumps({"rustc": compiler, "machine": machine, "counts": counts}, indent=2) + "\n")
    baseline = json.loads(BASELINE.read_text())
    same = (baseline["rustc"], baseline["machine"]) == (compiler, machine)
    if not same:
        print(f"The baseline was made with {baseline['rustc']} on {baseline['machine']}: nothing is judged.")
    worse = []
    for case, instructions in counts.items():
        before = baseline["counts"].get(case)
        change = instructions / before - 1 if before else 0.0
        print(f"{case:<18}{instructions:>10} instructions a {cases[case]}, {change:+.1%}" if before else
              f"{case:<18}{instructions:>10} instructions a {cases[case]}, no baseline")
        if same and (not before or change > TOLERANCE):
            worse.append(case)
    if worse:
        sys.exit(f"instructions.py: more than {TOLERANCE:.0%} over the baseline, or without one: {', '.join(worse)}. "
                 "If that is meant: tests/tools/instructions.py --update")


main()
