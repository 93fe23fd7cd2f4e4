"""The files that every pruned checkpoint carries, verbatim.

They work in two places: here, as part of the installed package, and inside a checkpoint, where transformers
runs them with `trust_remote_code=True` and `pruning` may not be installed. So they import nothing but each
other, torch and transformers, and stay flat: transformers copies relative imports from one folder only
(transformers 4.57.6, `dynamic_module_utils.py`).

A family is a configuration and a modeling file, of a dozen lines: the names of its classes and sub-layers. All that is
done with them is in the other files, which know no family.
"""
