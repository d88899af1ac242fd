"""The manifest that puts the trusted side into an SGX enclave by Gramine 1.9: written whole, checked, reproducible.

Enters: a plan file, an installation of Python, the address of a worker. Leaves: the text of a manifest that has passed
`check_manifest`, in which every file that the enclave may open stands with its SHA-256. Must never see: a secret, an
environment variable of the host, a file that was not measured.

    rehearsal   runs in an interpreter of its own: what the trusted side opens, without torch
    measure     from a rehearsal to trusted files with their hashes
    size        how large an enclave a plan needs
    manifest    the manifest as a document
    document    the document as TOML, one trusted file a line
    check       what a manifest must be; anything else is refused
"""

from slalom.gramine.check import check_manifest
from slalom.gramine.document import encode_manifest
from slalom.gramine.manifest import Enclave, Run, make_manifest
from slalom.gramine.measure import Installation, TrustedFile, measure_installation
from slalom.gramine.size import enclave_size, parse_enclave_size

__all__ = [
    "Enclave",
    "Installation",
    "Run",
    "TrustedFile",
    "check_manifest",
    "enclave_size",
    "encode_manifest",
    "make_manifest",
    "measure_installation",
    "parse_enclave_size",
]
