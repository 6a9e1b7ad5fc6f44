"""Pieces that historic designs are put together from; no design itself.

:mod:`copies`: per-memcg copies of caches, made late.  :mod:`pages`: charging of slabs and kernel
pages.  :mod:`removal`: what happens to copies and charges of a removed group.  :mod:`page_unit`
joins these three.  :mod:`byte_unit`: objects charged by their bytes, caches shared.
:mod:`selection`: what is accounted at all, and in which context.

The choices of a design are numbers in ``P.par[0]``, not functions, so all designs of a kind share
one compiled engine; a choice costs a branch that always goes the same way.
"""
