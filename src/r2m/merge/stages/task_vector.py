"""Stage `r2m task-vector`: subtract the base from a specialist and put its head aside."""

import logging
from pathlib import Path

from r2m.errors import R2MError
from r2m.merge.task_vector import task_vector
from r2m.models import checkpoint

logger = logging.getLogger(__name__)

HEAD = "head."


def write_task_vector(base: Path, specialist: Path, out: Path, head: Path) -> None:
    """Write the task vector and the head of one specialist.

    Raises:
        R2MError: the specialist was not made from this base, its tensors do not fit, or it has no head.
    """
    base_tensors, _ = checkpoint.load(base)
    tensors, metadata = checkpoint.load(specialist)
    base_hash = checkpoint.digest(base_tensors)
    if metadata.get("base_hash") != base_hash:
        raise R2MError(
            f"{specialist}: made from base {metadata.get('base_hash')}, but {base} has the hash {base_hash}"
        )
    head_tensors = {key: tensor for key, tensor in tensors.items() if key.startswith(HEAD)}
    if not head_tensors:
        raise R2MError(f"{specialist}: expected tensors named {HEAD}…, got none")
    backbone = {key: tensor for key, tensor in tensors.items() if key not in head_tensors}
    changes = task_vector(base_tensors, backbone)
    if not changes:
        logger.warning("%s: equal to the base, the task vector is empty", specialist)
    provenance = {**metadata, "specialist_hash": checkpoint.digest(tensors)}
    checkpoint.save(out, changes, provenance)
    checkpoint.save(head, head_tensors, provenance)
