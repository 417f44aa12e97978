"""Lets pyradiomics 3.0.1 build on Python 3.12 and 3.13: its build script calls names that 3.12 removed.

Only `make setup` puts this folder on the path, and only while pyradiomics is built.
"""

import configparser

if not hasattr(configparser, "SafeConfigParser"):

    class SafeConfigParser(configparser.ConfigParser):
        """The parser under the name, and with the method, that Python 3.11 still had."""

        readfp = configparser.ConfigParser.read_file

    configparser.SafeConfigParser = SafeConfigParser  # type: ignore[attr-defined]
