#!/usr/bin/env python3
"""Prints which tests needed a second try, from the report that nextest's profile `ci` writes.

unsteady.py REPORT
"""

import sys
import xml.etree.ElementTree as xml


def tries(report):
    """Of each test that was tried again: its name, how it ended, and what it first failed with."""
    for suite in xml.parse(report).iter("testsuite"):
        for test in suite.iter("testcase"):
            # nextest's words: flaky is what passed in the end, rerun what failed again.
            passed, failed = test.findall("flakyFailure"), test.findall("rerunFailure")
            for again in (passed or failed)[:1]:
                yield test.get("name"), "passed" if passed else "failed", reason(again.text or "")


def reason(output):
    """What a test panicked with: the line behind the one that says where it did."""
    lines = iter(output.splitlines())
    return next((next(lines, "") for line in lines if " panicked at " in line), "")


def main():
    try:
        rows = sorted(tries(sys.argv[1]))
    except OSError as error:
        print(f"unsteady: unknown, for there is no report ({error})")
        return
    if not rows:
        print("unsteady: none")
        return
    print(f"unsteady: {len(rows)}, to be mended before anything new")
    width = max(len(name) for name, _, _ in rows)
    for name, end, why in rows:
        print(f"  {name:{width}}  {end} the second time  {why}")


main()
