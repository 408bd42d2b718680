"""The conformance suite: does a plugin keep the contract? ``advss plugins check NAME``, or its author's own tests.

An author's ``tests/test_conformance.py``, with ``advss[testing]`` installed, is one line below an import, and pytest
runs every check as a test of its own, ``test_flip[inputs are images in 0 to 1]``::

    from advss.testing import conformance

    test_flip = conformance("flip")  # options, where some are needed: conformance("flip", options={"width": 3})

The plugin is found by its installed name (``pip install -e .``), made as a run makes it, and tried on a small encoder
and six images, beside the built-in tasks and under the installed defenses; an evaluation on a small classifier; a
launcher on jobs of moments; a data source on its own images, with ``options={"root": ...}`` where it needs to know
where these lie. A check passes, fails with a message that names the value and what to do, or says why it cannot be
asked of this plugin.

A room of core beside ``stages``: it uses everything below, and nothing but the command line uses it. ``verdicts`` says
what a check is, ``checks`` holds the facts by what they are about, ``suite`` names those of each kind, ``stand_ins``,
``ready``, ``defended``, ``measured`` and ``launched`` are what a plugin is tried on, ``elsewhere`` is a device that is
pretended.

What it cannot say: whether a plugin learns anything, whether it is fast, and what only a GPU knows (see ``elsewhere``).
"""

from __future__ import annotations

from advss.testing.as_tests import conformance

__all__ = ["conformance"]
